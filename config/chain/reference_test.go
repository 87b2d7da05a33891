package chain

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/config"
	"sluice/consul/mesh"
	"sluice/route"
	"sluice/test/consultest"
	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	consultest.ClearEnvironment()
	os.Exit(m.Run())
}

// sent is a request. It is a route.Request.
type sent struct {
	route.Request       // nil: no condition asks for more
	method, path, query string
	fields              map[string]string // names in lower case
}

func (r *sent) Method() []byte      { return []byte(r.method) }
func (r *sent) Query() []byte       { return []byte(r.query) }
func (r *sent) Steps() *route.Steps { return nil }
func (r *sent) Field(name string, from int) ([]byte, int) {
	value, ok := r.fields[name]
	if !ok || from > 0 {
		return nil, -1
	}
	return []byte(value), 1
}

// outcome is what happens to a request.
type outcome struct {
	Timeout  time.Duration // 0: the usual one
	Attempts int           // 0: the usual ones
	Rewrite  string
	Edits    string             // of all
	Ends     map[string]float64 // shares, by targets and edits
}

// naive is what Envoy does with a request, as agent/xds/routes.go of Consul tells it of the chain.
func naive(c *mesh.Compiled, r *sent) outcome {
	o := outcome{Ends: make(map[string]float64)}
	at := c.StartNode
	if n := c.Nodes[at]; n.Type == mesh.NodeRouter {
		for _, way := range n.Routes {
			if way.Definition.Match != nil && way.Definition.Match.HTTP != nil && !holds(way.Definition.Match.HTTP, r) {
				continue
			}
			if d := way.Definition.Destination; d != nil {
				o.Timeout, o.Rewrite, o.Edits = time.Duration(d.RequestTimeout), d.PrefixRewrite, editsOf(d.RequestHeaders)
				if d.NumRetries > 0 || d.RetryOnConnectFailure {
					o.Attempts = min(5, 1+max(1, int(d.NumRetries)))
				}
			}
			at = way.NextNode
			break
		}
	}
	if n := c.Nodes[at]; n.Type == mesh.NodeSplitter {
		for _, s := range n.Splits {
			o.Ends[instancesOf(c, s.NextNode)+" "+editsOf(s.Definition.RequestHeaders)] += s.Weight
		}
	} else {
		o.Ends[instancesOf(c, at)+" "] = 100
	}
	return o
}

func instancesOf(c *mesh.Compiled, resolver string) string {
	r := c.Nodes[resolver].Resolver
	ids := []string{r.Target}
	if r.Failover != nil {
		ids = append(ids, r.Failover.Targets...)
	}
	var texts []string
	for _, id := range ids {
		t := c.Targets[id]
		if text := fmt.Sprintf("%s/%s/%s/%v/%s", t.Service, t.ServiceSubset, t.Subset.Filter, t.Subset.OnlyPassing, t.SNI); !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	lb := ""
	if l := c.Nodes[resolver].LoadBalancer; l != nil {
		lb = l.Policy
	}
	return strings.Join(texts, ",") + " " + lb
}

func editsOf(h *api.HTTPHeaderModifiers) string {
	if h == nil {
		return ""
	}
	return fmt.Sprint(h.Set, h.Add, h.Remove)
}

func holds(m *mesh.HTTPMatch, r *sent) bool {
	path, prefix, exact := r.path, m.PathPrefix, m.PathExact
	if m.CaseInsensitive && m.PathRegex == "" {
		path, prefix, exact = strings.ToLower(path), strings.ToLower(prefix), strings.ToLower(exact)
	}
	ok := strings.HasPrefix(path, prefix) && (exact == "" || path == exact) && (m.PathRegex == "" || whole(m.PathRegex, path)) &&
		(len(m.Methods) == 0 || slices.Contains(m.Methods, r.method))
	for _, h := range m.Header {
		value, has := r.fields[strings.ToLower(h.Name)]
		fulfils := compares(&h, value)
		switch {
		case h.Present:
			ok = ok && has != h.Invert
		default:
			ok = ok && has && fulfils != h.Invert
		}
	}
	for _, q := range m.QueryParam {
		name, value, _ := strings.Cut(r.query, "=")
		ok = ok && name == q.Name && (q.Present || compares(&q, value))
	}
	return ok
}

func compares(m *mesh.ValueMatch, value string) bool {
	return m.Exact != "" && value == m.Exact || m.Prefix != "" && strings.HasPrefix(value, m.Prefix) ||
		m.Suffix != "" && strings.HasSuffix(value, m.Suffix) || m.Regex != "" && whole(m.Regex, value)
}

func whole(expression, text string) bool {
	found := regexp.MustCompile(expression)
	found.Longest()
	return found.FindString(text) == text && found.MatchString(text)
}

// translated is what sluice does with a request by what Translate returned.
func translated(t *testing.T, res Result, r *sent) outcome {
	o := outcome{Ends: make(map[string]float64)}
	end := func(service, edits string, share float64) {
		s, ok := res.Derived[service]
		if !ok {
			verify.That(t, service == "web", "there is no service %s", service)
			s = res.Service
		}
		var texts []string
		for _, to := range s.Consul.Targets {
			texts = append(texts, fmt.Sprintf("%s/%s/%s/%v/%s", to.Service, to.Subset, to.Filter, to.OnlyPassing, to.SNI))
		}
		policy := map[string]string{"ewma": "", "least_conn": "least_request", "hash": "maglev"}
		lb, other := policy[string(s.Balance.Policy)]
		if !other {
			lb = string(s.Balance.Policy)
		}
		o.Ends[strings.Join(texts, ",")+" "+lb+" "+edits] += share * 100
	}
	if len(res.Service.Chain) == 0 {
		end("web", "", 1)
		return o
	}
	for _, b := range res.Service.Chain {
		target, path := b.Route.Target(), r.path
		if b.IgnoreCase {
			target.Path, target.Checked, path = strings.ToLower(target.Path), nil, strings.ToLower(path)
		}
		target.Service = &route.Service{Name: "any"}
		table, err := route.NewTable([]route.Route{target})
		verify.Require(t, err == nil, "%v", err)
		if table.Match([]byte("h"), []byte(path), r) == nil {
			continue
		}
		if w := b.Route.Timeouts; w != nil {
			o.Timeout = *w.ResponseHeader
		}
		if w := b.Route.Retry; w != nil {
			o.Attempts = *w.Attempts
		}
		o.Rewrite, o.Edits = b.PrefixRewrite, editsIn(b.Route.RequestHeaders)
		if b.Route.Service != "" {
			end(b.Route.Service, "", 1)
		}
		for _, p := range b.Route.Parts {
			end(p.Route.Service, editsIn(p.Route.RequestHeaders), p.Share)
		}
		return o
	}
	t.Errorf("no branch for %+v", r)
	return o
}

func editsIn(h *config.HeaderEdits) string {
	if h == nil {
		return ""
	}
	text := func(in map[string]config.Secret) map[string]string {
		out := make(map[string]string)
		for name, value := range in {
			out[name] = value.Reveal()
		}
		return out
	}
	return fmt.Sprint(text(h.Set), text(h.Add), h.Remove)
}

// Whatever entries Consul accepts, sluice does what Envoy would do of its compiled chain.
func TestChainsAsConsulCompilesThem(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	entries := agent.Client().ConfigEntries()
	random := rand.New(rand.NewPCG(verify.Seed(t), 1))
	services := []string{"web", "api", "db"}
	for _, name := range services {
		_, _, err := entries.Set(&api.ServiceConfigEntry{Kind: api.ServiceDefaults, Name: name, Protocol: "http"}, nil)
		verify.NoError(t, err)
	}
	kinds := make(map[string]int)
	for round := range 120 {
		for _, e := range randomEntries(random, services) {
			if _, _, err := entries.Set(e, nil); err != nil || random.IntN(4) == 0 { // what is not valid stays out
				_, _ = entries.Delete(e.GetKind(), e.GetName(), nil)
			}
		}
		c := compiled(t, agent.URL())
		kinds[c.Nodes[c.StartNode].Type]++
		res, err := Translate("web", web(), "", c)
		verify.Require(t, err == nil, "round %d: %v", round, err)
		verify.That(t, len(res.Problems) == 0, "round %d: %q", round, res.Problems)
		for range 40 {
			r := randomRequest(random)
			want, got := naive(c, r), translated(t, res, r)
			same := maps.EqualFunc(want.Ends, got.Ends, func(a, b float64) bool { return math.Abs(a-b) < .02 })
			want.Ends, got.Ends = nil, map[string]float64(nil)
			if wantEnds, gotEnds := naive(c, r).Ends, translated(t, res, r).Ends; !same || fmt.Sprint(want) != fmt.Sprint(got) {
				text, _ := json.MarshalIndent(c, "", " ")
				t.Fatalf("round %d, %+v:\ngot  %+v %v\nwant %+v %v\n%s", round, r, got, gotEnds, want, wantEnds, text)
			}
		}
	}
	t.Logf("chains that start with %v", kinds)
	verify.That(t, len(kinds) == 3, "not all kinds of chains: %v", kinds)
}

// compiled returns the chain of web.
func compiled(t *testing.T, url string) *mesh.Compiled {
	t.Helper()
	answer, err := http.Get(url + "/v1/discovery-chain/web")
	verify.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	verify.NoError(t, err)
	var decoded struct{ Chain *mesh.Compiled }
	err = json.Unmarshal(body, &decoded)
	verify.Require(t, err == nil && decoded.Chain != nil, "%v: %s", err, body)
	return decoded.Chain
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// randomEntries returns entries of the services; Consul refuses some.
func randomEntries(r *rand.Rand, services []string) (entries []api.ConfigEntry) {
	headers := func() *api.HTTPHeaderModifiers {
		return pick(r, nil, &api.HTTPHeaderModifiers{Set: map[string]string{"x-set": pick(r, "a", "b")}, Add: map[string]string{"x-add": "1"}, Remove: []string{"x-gone"}})
	}
	for _, name := range services {
		resolver := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: name, RequestTimeout: 0}
		resolver.Subsets = map[string]api.ServiceResolverSubset{
			"v1": {Filter: "Service.Meta.version == 1", OnlyPassing: r.IntN(2) == 0}, "v2": {Filter: fmt.Sprintf("Service.Meta.version == %d", 2+r.IntN(2))},
		}
		resolver.DefaultSubset = pick(r, "", "", "v1")
		switch r.IntN(5) {
		case 0:
			resolver.Redirect = &api.ServiceResolverRedirect{Service: pick(r, services...), ServiceSubset: pick(r, "", "v2")}
			resolver.Subsets, resolver.DefaultSubset = nil, ""
		case 1:
			resolver.Failover = map[string]api.ServiceResolverFailover{pick(r, "*", "v1"): {Targets: []api.ServiceResolverFailoverTarget{
				{Service: pick(r, services...)}, {ServiceSubset: "v2"}, {Datacenter: "dc2"},
			}}}
		case 2:
			resolver.LoadBalancer = pick(r, &api.LoadBalancer{Policy: pick(r, "least_request", "random", "round_robin")},
				&api.LoadBalancer{Policy: "maglev", HashPolicies: []api.HashPolicy{{SourceIP: true}}})
		}
		entries = append(entries, resolver)

		splitter := &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: name}
		left := 100
		for _, subset := range []string{"v1", "v2"} {
			weight := r.IntN(left + 1)
			left -= weight
			splitter.Splits = append(splitter.Splits, api.ServiceSplit{Weight: float32(weight), ServiceSubset: subset, RequestHeaders: headers()})
		}
		splitter.Splits = append(splitter.Splits, api.ServiceSplit{Weight: float32(left), Service: pick(r, services...), RequestHeaders: headers()})
		entries = append(entries, splitter)
	}
	router := &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web"}
	for range r.IntN(5) {
		m := &api.ServiceRouteHTTPMatch{Methods: pick(r, nil, nil, []string{"GET"}, []string{"PUT", "POST"})}
		d := &api.ServiceRouteDestination{Service: pick(r, services...), ServiceSubset: pick(r, "", "", "v1"), RequestTimeout: time.Duration(r.IntN(3)) * time.Second,
			NumRetries: uint32(r.IntN(3)), RetryOnConnectFailure: r.IntN(3) == 0, RequestHeaders: headers()}
		switch r.IntN(4) {
		case 0:
			m.PathExact, d.PrefixRewrite = pick(r, "/a", "/A", "/a/b", "/"), pick(r, "", "/z")
		case 1:
			m.PathPrefix, d.PrefixRewrite = pick(r, "/a", "/A", "/a/b", "/"), pick(r, "", "/z")
		case 2:
			m.PathRegex = pick(r, "/a.*", "/a|/ab", "(?i)/A", "/(a|b)?", ".*b")
		}
		m.CaseInsensitive = r.IntN(3) == 0
		for range r.IntN(3) {
			h := api.ServiceRouteHTTPMatchHeader{Name: pick(r, "x-a", "X-B"), Invert: r.IntN(3) == 0}
			switch r.IntN(5) {
			case 0:
				h.Present = true
			case 1:
				h.Exact = pick(r, "1", "*", "~1")
			case 2:
				h.Prefix = pick(r, "1", ".")
			case 3:
				h.Suffix = pick(r, "2", "$")
			case 4:
				h.Regex = pick(r, "1", "[0-9]*", "1|12", ".")
			}
			m.Header = append(m.Header, h)
		}
		if r.IntN(4) == 0 {
			m.QueryParam = []api.ServiceRouteHTTPMatchQueryParam{pick(r, api.ServiceRouteHTTPMatchQueryParam{Name: "q", Present: true},
				api.ServiceRouteHTTPMatchQueryParam{Name: "q", Exact: "1"}, api.ServiceRouteHTTPMatchQueryParam{Name: "q", Regex: "1|2"})}
		}
		router.Routes = append(router.Routes, api.ServiceRoute{Match: &api.ServiceRouteMatch{HTTP: m}, Destination: d})
	}
	return append(entries, router)
}

func randomRequest(r *rand.Rand) *sent {
	s := &sent{method: pick(r, "GET", "POST", "PUT"), path: pick(r, "/", "/a", "/A", "/a/b", "/ab", "/b"), query: pick(r, "", "q", "q=1", "q=2", "p=1"), fields: make(map[string]string)}
	for _, name := range []string{"x-a", "x-b"} {
		if value := pick(r, "-", "", "1", "12", "2", "*", "~1", ".x$"); value != "-" {
			s.fields[name] = value
		}
	}
	return s
}
