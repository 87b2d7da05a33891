package gateway

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/consul/api"

	"sluice/consul/mesh"
	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/verify"
)

// startVersions runs the services web, with an instance of each of two versions, and api, in a mesh
// with ACLs, and sluice before web, with the token of docs/mesh.md.
func startVersions(t *testing.T) (*meshtest.Mesh, *running) {
	t.Helper()
	m := meshtest.Start(t, consultest.Options{ACLs: true})
	for _, s := range []meshtest.Service{
		{Name: "web", ID: "web-1", Meta: map[string]string{"version": "1"}}, {Name: "web", ID: "web-2", Meta: map[string]string{"version": "2"}},
		{Name: "api", ID: "api-1"},
	} {
		m.Native(t, s)
	}
	for _, service := range []string{"web", "api"} {
		m.SetProtocol(t, service, "http")
		m.Intend(t, service, meshtest.Allow("sluice"))
	}
	_, token, err := m.NewToken("sluice", verify.Result(consultest.DocumentedPolicy("../docs/mesh.md", "## ACLs")).Must(t))
	verify.NoError(t, err)
	r := start(t, preamble+"consul: { addresses: ["+m.URL()+"], token: "+token.SecretID+" }\nservices: { web: { consul: { connect: true }, timeouts: { connect: 10s } } }\nroutes: [{ service: web }]\n")
	return m, r
}

// asked is an answer.
type asked struct {
	http.Header
	status int
	err    error
}

func (a asked) instance() string { return a.Get(meshtest.InstanceHeader) }

// ask sends a GET by a connection of its own.
func (r *running) ask(path string, header ...string) (a asked) {
	request, err := http.NewRequest(http.MethodGet, "http://"+r.listeners.all()[0].Addr().String()+path, nil)
	if err != nil {
		return asked{err: err}
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return asked{err: err}
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return asked{answer.Header, answer.StatusCode, err}
}

// underLoad sends requests until stop, which waits for them, and returns how many there were. Each
// must be answered with 200.
func (r *running) underLoad(ask func() asked) (stop func() int) {
	ended, number := make(chan struct{}), 0
	var running sync.WaitGroup
	running.Go(func() {
		for ; ; number++ {
			select {
			case <-ended:
				return
			default:
			}
			if a := ask(); a.err != nil || a.status != http.StatusOK {
				r.t.Errorf("request %d: %d %s %v", number, a.status, a.Get("X-Sluice-Reason"), a.err)
				return
			}
		}
	})
	return func() int {
		close(ended)
		running.Wait()
		return number
	}
}

// Every kind of entry moves the requests as soon as Consul has it, and its deletion moves them
// back. No request fails.
func TestEntriesMoveTraffic(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	stop := r.underLoad(func() asked { return r.ask("/") })
	defer func() { t.Logf("%d requests beside", stop()) }()
	moves := func(what string, change func(), moved func() bool) {
		t.Helper()
		change()
		begin := time.Now()
		consultest.Await(t, what, moved)
		t.Logf("%s: after %v", what, time.Since(begin).Round(time.Millisecond))
	}
	goesTo := func(path string, want ...string) func() bool {
		return func() bool {
			for range 8 {
				if !slices.Contains(want, r.ask(path).instance()) {
					return false
				}
			}
			return true
		}
	}
	subsets := func(change ...func(*api.ServiceResolverConfigEntry)) func() {
		e := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: `Service.Meta.version == "1"`}, "v2": {Filter: `Service.Meta.version == "2"`}, "v9": {Filter: `Service.Meta.version == "9"`},
		}}
		for _, c := range change {
			c(e)
		}
		return func() { m.Write(t, e) }
	}
	moves("a default subset", subsets(func(e *api.ServiceResolverConfigEntry) { e.DefaultSubset = "v2" }), goesTo("/", "web-2"))
	moves("a failover", subsets(func(e *api.ServiceResolverConfigEntry) {
		e.DefaultSubset = "v9"
		e.Failover = map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{{Service: "api"}}}}
	}), goesTo("/", "api-1"))
	moves("a hash", subsets(func(e *api.ServiceResolverConfigEntry) {
		e.LoadBalancer = &api.LoadBalancer{Policy: "maglev", HashPolicies: []api.HashPolicy{{Field: "header", FieldValue: "X-User"}}}
	}), func() bool {
		users := make(map[string]bool)
		for user := range 16 {
			first := r.ask("/", "X-User", fmt.Sprint(user)).instance()
			users[first] = true
			for range 4 {
				if r.ask("/", "X-User", fmt.Sprint(user)).instance() != first {
					return false
				}
			}
		}
		return len(users) == 2
	})
	split := func(v1, v2 float32) func() {
		return func() {
			m.Write(t, &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "web", Splits: []api.ServiceSplit{
				{Weight: v1, ServiceSubset: "v1", ResponseHeaders: &api.HTTPHeaderModifiers{Set: map[string]string{"X-Side": "one"}}}, {Weight: v2, ServiceSubset: "v2"},
			}})
		}
	}
	moves("a splitter", split(100, 0), func() bool { return goesTo("/", "web-1")() && r.ask("/").Get("X-Side") == "one" })
	moves("a splitter with other weights", split(0, 100), func() bool { return goesTo("/", "web-2")() && r.ask("/").Get("X-Side") == "" })
	moves("a splitter with two sides", split(90, 10), func() bool {
		return strings.Contains(r.metrics(), `sluice_chain_share{branch="service-splitter web",service="web",target="web@v2"} 0.1`)
	})
	// The clients are always the same ones, so their number on a side is, too.
	clients, second := rand.New(rand.NewPCG(1, 2)), 0
	const number, share = 2000, 0.1
	for range number {
		cookie := "sluice_client=" + strconv.FormatUint(clients.Uint64(), 36)
		first := r.ask("/", "Cookie", cookie).instance()
		verify.Require(t, r.ask("/", "Cookie", cookie).instance() == first, "%s is on two sides", cookie)
		if first == "web-2" {
			second++
		}
	}
	deviation := math.Sqrt(number * share * (1 - share))
	verify.That(t, math.Abs(float64(second)-number*share) <= 2*deviation, "%d of %d clients are on the side of %v: want at most two standard deviations (%.1f each) from %v",
		second, number, share, deviation, number*share)
	moves("a splitter with other weights again", split(0, 100), goesTo("/", "web-2"))
	moves("a router", func() {
		m.Write(t, &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web", Routes: []api.ServiceRoute{{
			Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{PathPrefix: "/api", Header: []api.ServiceRouteHTTPMatchHeader{{Name: "X-Try", Suffix: "yes"}}}},
			Destination: &api.ServiceRouteDestination{Service: "api", PrefixRewrite: "/v1", RequestHeaders: &api.HTTPHeaderModifiers{
				Set: map[string]string{"X-Set": "$1 100%%"}, Remove: []string{"X-Try"},
			}},
		}}})
	}, func() bool { return r.ask("/api/x", "X-Try", "o yes").instance() == "api-1" })
	got := r.ask("/api/x?q=1", "X-Try", "yes")
	verify.That(t, got.instance() == "api-1" && got.Get("Got-Path") == "/v1/x?q=1" && got.Get("Got-X-Set") == "$1 100%" && got.Get("Got-X-Try") == "", "the router: %v", got.Header)
	verify.That(t, r.ask("/api/x").instance() == "web-2", "a request without the field takes the route")

	moves("the deletion of the router", func() { m.Delete(t, api.ServiceRouter, "web") }, func() bool { return r.ask("/api/x", "X-Try", "yes").instance() == "web-2" })
	moves("the deletion of the splitter", func() { m.Delete(t, api.ServiceSplitter, "web") }, func() bool { return r.pooled("web") == "web=[web-1 web-2]" })
	moves("a redirect", func() {
		m.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Redirect: &api.ServiceResolverRedirect{Service: "api"}})
	}, goesTo("/", "api-1"))
	moves("the deletion of the resolver", func() { m.Delete(t, api.ServiceResolver, "web") }, func() bool { return goesTo("/", "web-1", "web-2")() })
}

// A subset with another filter has other instances at once, also if these are none.
func TestRedefinedSubsets(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	write := func(filter string) {
		m.Write(t, &api.ServiceResolverConfigEntry{
			Kind: api.ServiceResolver, Name: "web", DefaultSubset: "v1", Subsets: map[string]api.ServiceResolverSubset{"v1": {Filter: filter}},
			Failover: map[string]api.ServiceResolverFailover{"*": {Targets: []api.ServiceResolverFailoverTarget{{Service: "api"}}}},
		})
	}
	write(`Service.Meta.version == "1"`)
	consultest.AwaitPromptly(t, "v1", func() bool { return r.ask("/").instance() == "web-1" && r.pooled("web") == "web=[api-1 web-1]" })
	write(`Service.Meta.version == "2"`)
	consultest.AwaitPromptly(t, "v2", func() bool { return r.ask("/").instance() == "web-2" && r.pooled("web") == "web=[api-1 web-2]" })
	write(`Service.Meta.version == "9"`)
	consultest.AwaitPromptly(t, "no instance: the failover", func() bool { return r.ask("/").instance() == "api-1" })
}

// version is a chain as Consul had it for a time.
type version struct {
	begins time.Time // before it was written
	ends   time.Time // when the next one was in use; zero: it is the last
	chain  *mesh.Compiled
}

// sent is a request with its answer.
type sent struct {
	begins, ends time.Time
	path, try    string
	instance     string
}

// allows reports whether a chain leads a request to an instance.
func allows(c *mesh.Compiled, s sent) bool {
	at := c.StartNode
	for _, route := range c.Nodes[at].Routes {
		m := route.Definition.Match
		if m == nil || m.HTTP == nil || strings.HasPrefix(s.path, m.HTTP.PathPrefix) && (len(m.HTTP.Header) == 0 || s.try == m.HTTP.Header[0].Exact) {
			at = route.NextNode
			break
		}
	}
	resolvers := []string{at}
	if splits := c.Nodes[at].Splits; len(splits) > 0 {
		resolvers = nil
		for _, split := range splits {
			if split.Weight > 0 {
				resolvers = append(resolvers, split.NextNode)
			}
		}
	}
	return slices.ContainsFunc(resolvers, func(resolver string) bool {
		target := c.Targets[c.Nodes[resolver].Resolver.Target]
		return strings.HasPrefix(s.instance, target.Service+"-"+strings.TrimPrefix(target.ServiceSubset, "v"))
	})
}

// While entries and instances change and the configuration is loaded again, each request is
// answered by an instance to which a chain leads that Consul has, or had until the next one was in
// use. None fails.
func TestChainsThatChangeUnderLoad(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	m.Native(t, meshtest.Service{Name: "api", ID: "api-2"})
	seed := verify.Seed(t)
	random := rand.New(rand.NewPCG(seed, 2))

	compiled := func() *mesh.Compiled {
		var decoded struct{ Chain *mesh.Compiled }
		_, err := m.Client().Raw().Query("/v1/discovery-chain/web", &decoded, nil)
		verify.Require(t, err == nil && decoded.Chain != nil, "%v", err)
		return decoded.Chain
	}
	inUse := func() *mesh.Compiled {
		r.chains.mu.Lock()
		defer r.chains.mu.Unlock()
		if s := r.chains.inUse["web"]; s != nil {
			return s.used
		}
		return nil
	}
	settle := func(c *mesh.Compiled) {
		consultest.Await(t, "the chain is in use", func() bool { return reflect.DeepEqual(inUse(), c) })
	}
	all := []version{{begins: time.Now(), chain: compiled()}}
	settle(all[0].chain)

	var mu sync.Mutex // guards answers
	var answers []sent
	var stops []func() int
	for n := range 3 {
		paths := rand.New(rand.NewPCG(seed, uint64(10+n)))
		stops = append(stops, r.underLoad(func() asked {
			s := sent{begins: time.Now(), path: []string{"/", "/api/x"}[paths.IntN(2)], try: []string{"no", "yes"}[paths.IntN(2)]}
			a := r.ask(s.path, "X-Try", s.try)
			s.ends, s.instance = time.Now(), a.instance()
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, s)
			return a
		}))
	}
	entries := m.Client().ConfigEntries()
	refused := 0
	for range 30 {
		begins := time.Now()
		entry := changedEntry(random)
		var err error
		if random.IntN(3) == 0 {
			_, err = entries.Delete(entry.GetKind(), entry.GetName(), nil)
		} else {
			_, _, err = entries.Set(entry, nil)
		}
		if err != nil { // another entry needs it
			refused++
		}
		c := compiled()
		switch random.IntN(4) {
		case 0:
			r.Reload()
		case 1: // api-1 remains
			verify.NoError(t, m.Client().Agent().EnableServiceMaintenance("api-2", "test"))
		case 2:
			verify.NoError(t, m.Client().Agent().DisableServiceMaintenance("api-2"))
		}
		settle(c)
		all[len(all)-1].ends = time.Now()
		all = append(all, version{begins: begins, chain: c})
	}
	for _, stop := range stops {
		stop()
	}
	for _, s := range answers {
		possible := 0
		if !slices.ContainsFunc(all, func(v version) bool {
			if v.begins.After(s.ends) || !v.ends.IsZero() && v.ends.Before(s.begins) {
				return false
			}
			possible++
			return allows(v.chain, s)
		}) && s.instance != "" {
			t.Errorf("%s x-try %s was answered by %s from %v for %v, which none of %d chains allows", s.path, s.try, s.instance, s.begins.Sub(all[0].begins), s.ends.Sub(s.begins), possible)
		}
	}
	for _, v := range all {
		t.Logf("from %v to %v: %s", v.begins.Sub(all[0].begins), v.ends.Sub(all[0].begins), outline(v.chain))
	}
	t.Logf("%d requests, %d changes, %d refused by Consul", len(answers), len(all)-1, refused)
}

// outline returns where a chain leads.
func outline(c *mesh.Compiled) string {
	var where func(at string) string
	where = func(at string) string {
		n := c.Nodes[at]
		if n.Resolver != nil {
			return n.Resolver.Target
		}
		var ways []string
		for _, route := range n.Routes {
			ways = append(ways, where(route.NextNode))
		}
		for _, split := range n.Splits {
			ways = append(ways, fmt.Sprintf("%v %s", split.Weight, where(split.NextNode)))
		}
		return fmt.Sprintf("%s%v", n.Type, ways)
	}
	return strings.ReplaceAll(where(c.StartNode), ".default.default.dc1", "")
}

// changedEntry returns an entry of web, which Consul may refuse.
func changedEntry(r *rand.Rand) api.ConfigEntry {
	switch r.IntN(3) {
	case 0:
		e := &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Subsets: map[string]api.ServiceResolverSubset{
			"v1": {Filter: `Service.Meta.version == "1"`}, "v2": {Filter: `Service.Meta.version == "2"`},
		}}
		e.DefaultSubset = []string{"", "v1", "v2"}[r.IntN(3)]
		if r.IntN(4) == 0 {
			e.Redirect, e.Subsets, e.DefaultSubset = &api.ServiceResolverRedirect{Service: "api"}, nil, ""
		}
		return e
	case 1:
		weight := float32(r.IntN(3)) * 50
		e := &api.ServiceSplitterConfigEntry{Kind: api.ServiceSplitter, Name: "web"}
		e.Splits = []api.ServiceSplit{{Weight: weight, ServiceSubset: "v1"}, {Weight: 100 - weight, ServiceSubset: "v2"}}
		if r.IntN(2) == 0 {
			e.Splits = []api.ServiceSplit{{Weight: weight}, {Weight: 100 - weight, Service: "api"}}
		}
		return e
	}
	e := &api.ServiceRouterConfigEntry{Kind: api.ServiceRouter, Name: "web"}
	e.Routes = append(e.Routes, api.ServiceRoute{Match: &api.ServiceRouteMatch{HTTP: &api.ServiceRouteHTTPMatch{
		PathPrefix: "/api", Header: []api.ServiceRouteHTTPMatchHeader{{Name: "X-Try", Exact: "yes"}},
	}}, Destination: &api.ServiceRouteDestination{Service: []string{"api", "web"}[r.IntN(2)]}})
	if r.IntN(2) == 0 {
		e.Routes[0].Destination = &api.ServiceRouteDestination{ServiceSubset: "v2"}
	}
	return e
}

// echo opens a WebSocket to the service web, until the test ends, and returns a function that
// reports whether it still echoes.
func (r *running) echo() (echoes func() bool) {
	r.t.Helper()
	c, _, err := websocket.Dial(r.t.Context(), strings.Replace(r.url("web"), "http", "ws", 1), nil)
	verify.NoError(r.t, err)
	r.t.Cleanup(func() { c.CloseNow() })
	echoes = func() bool {
		ctx, end := context.WithTimeout(r.t.Context(), consultest.Patience)
		defer end()
		if c.Write(ctx, websocket.MessageText, []byte("hello")) != nil {
			return false
		}
		_, _, err := c.Read(ctx)
		return err == nil
	}
	verify.Require(r.t, echoes(), "the WebSocket does not echo")
	return echoes
}

// A service that a chain has dropped has draining peers: their connections end when an intention
// begins to deny the service, and those to the service that stands in for it do not.
func TestConnectionsToADroppedServiceEndWithADenial(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	text := string(verify.Result(os.ReadFile(r.file)).Must(t))
	r.replace(strings.Replace(text, "timeouts:", "drain: { timeout: 1h }, timeouts:", 1))
	dropped := r.echo()
	m.Write(t, &api.ServiceResolverConfigEntry{Kind: api.ServiceResolver, Name: "web", Redirect: &api.ServiceResolverRedirect{Service: "api"}})
	r.await("api stands in for web", func() bool { return r.ask("/").instance() == "api-1" })
	m.SetProtocol(t, "other", "http") // what else is written changes nothing
	stays := r.echo()
	verify.That(t, dropped(), "the WebSocket does not echo")

	m.Intend(t, "web", meshtest.Deny("sluice"))
	r.await("the connection to web ends", func() bool { return !dropped() })
	verify.That(t, stays(), "the connection to api has ended")
}

// Connections that an old process finishes after an upgrade end too when an intention begins to
// deny them.
func TestConnectionsOfAReplacedProcessEndWithADenial(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	echoes := r.echo()
	next := r.upgrade(string(verify.Result(os.ReadFile(r.file)).Must(t)), nil)
	later := next.echo()
	verify.That(t, echoes(), "the WebSocket has ended with the upgrade")
	m.Intend(t, "web", meshtest.Deny("sluice"))
	next.await("the connection of the new process ends", func() bool { return !later() })
	r.await("the connection of the old process ends", func() bool { return !echoes() })
}

// So do those to a service that was the last one in the mesh, after a reload that has moved it out
// of the mesh, and sluice with it.
func TestConnectionsToTheMeshEndWithADenialAfterItIsLeft(t *testing.T) {
	t.Parallel()
	m, r := startVersions(t)
	text := strings.Replace(string(verify.Result(os.ReadFile(r.file)).Must(t)), "timeouts:", "drain: { timeout: 1h }, timeouts:", 1)
	text = strings.Replace(text, "consul: { addresses", "consul: { connect: { service: sluice }, register: { service: other }, addresses", 1)
	r.replace(text)
	echoes := r.echo()
	plain := strings.TrimPrefix(origin(t, "plain"), "http://")
	text = strings.Replace(text, "consul: { connect: true }", "peers: ["+plain+"]", 1)
	r.replace(strings.Replace(text, "connect: { service: sluice }, ", "", 1)) // the name of before counts
	r.gets("/", "plain")
	r.replace(text)
	verify.That(t, echoes(), "the WebSocket has ended with the reload")
	m.Intend(t, "web", meshtest.Deny("sluice"))
	r.await("the connection ends", func() bool { return !echoes() })
}
