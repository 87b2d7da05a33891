package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"sluice/route"
)

// RouteAnswer is the body of /api/route: which route a request would get, and why.
type RouteAnswer struct {
	Host string `json:"host"` // as routes compare it
	Path string `json:"path"`
	// Route is the chosen one; null: none, so that the answer is 404.
	Route *Route `json:"route"`
	// Service is the one of a route with Weighted, or of its service's discovery chain, that gets
	// the request; empty: chance decides, or the route has neither.
	Service string `json:"service,omitempty"`
	// Branch is the branch of the discovery chain that the request takes; null: none.
	Branch *Branch `json:"branch,omitempty"`
	// Group is the group of the service's peers that the request would get; empty: the
	// route has no split, or the request says nothing of what the split goes by.
	Group string `json:"group,omitempty"`
	// Denied is why the mesh denies the connections for the request; empty: it does not, or that is
	// not known.
	Denied string `json:"denied,omitempty"`
	// Refused is the reason with which sluice refuses the path; empty: it does not.
	Refused string `json:"refused,omitempty"`
	// Candidates are the routes whose host and path match, in order; with ?all=true all.
	Candidates []Candidate `json:"candidates"`
	// OtherPath and OtherHost count the routes that do not match for this reason.
	OtherPath int `json:"other_path"`
	OtherHost int `json:"other_host"`
}

// Candidate is a route, and why it gets the request or not.
type Candidate struct {
	Route
	Place   int    `json:"place"`             // in /api/routes, from 1
	Outcome string `json:"outcome"`           // chosen, later, condition, path, host
	Failing string `json:"failing,omitempty"` // the first condition that does not hold
}

// route answers /api/route?method=&url=&header=&client=&certificate=&listener=&all=.
func (h routeHandler) route(r *http.Request) (any, error) {
	query := r.URL.Query()
	request, err := newImagined(query)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	if c := h.Effective(); c != nil && request.listener != "" {
		if want := c.WantListener(request.listener); want != "" {
			return nil, refuse(http.StatusBadRequest, "listener %q: %s", request.listener, want)
		}
	}
	table, host, path := h.Table(), []byte(request.url.Host), []byte(request.url.EscapedPath())
	x := table.Explain(host, path, request)
	readings := h.readingsByName()
	answer := RouteAnswer{Host: x.Host, Path: x.Path, Candidates: []Candidate{}}
	for i, v := range x.Verdicts {
		switch v.Outcome {
		case route.OutcomeHost:
			answer.OtherHost++
		case route.OutcomePath:
			answer.OtherPath++
		}
		if query.Get("all") != "true" && (v.Outcome == route.OutcomeHost || v.Outcome == route.OutcomePath) {
			continue
		}
		c := Candidate{Route: describeRoute(v.Route, readings), Place: i + 1, Outcome: string(v.Outcome), Failing: v.Failing}
		if v.Outcome == route.OutcomeChosen {
			table.Match(host, path, request) // takes its steps
			chosen := request.target(v.Route)
			taken, unsafe := request.branch(chosen)
			if taken >= 0 {
				all := describeChain(chosen.Router, readings)
				addChain(all, chosen.ServiceName(), h.Effective())
				answer.Branch, chosen = &all[taken], request.target(&chosen.Router.Ways[taken])
			}
			answer.Route, answer.Group = &c.Route, request.group(chosen.Split)
			if chosen != v.Route {
				answer.Service = chosen.ServiceName()
			}
			answer.Denied = h.DeniedBy(chosen.ServiceName())
			c := h.Effective()
			keepsDots := c != nil && c.Client.KeepDotSegments
			if unsafe || table.Evades(host, path, request, v.Route, keepsDots) {
				answer.Refused = "unsafe_path" // as chooseRoute and editPath of package proxy
			}
			if request.steps.Exceeded() {
				answer.Refused = "regexp_budget"
			}
		}
		answer.Candidates = append(answer.Candidates, c)
	}
	return answer, nil
}

// imagined is a request that nobody sent. It implements [route.Request].
type imagined struct {
	method, listener string
	url              *url.URL
	client           netip.Addr
	certificate      *route.Certificate // nil: none
	fields           [][2]string        // names in lower case
	steps            route.Steps
}

func newImagined(query url.Values) (*imagined, error) {
	r := &imagined{method: cmp.Or(query.Get("method"), http.MethodGet), listener: query.Get("listener")}
	var err error
	if r.url, err = url.Parse(query.Get("url")); err != nil || r.url.Scheme != "http" && r.url.Scheme != "https" || r.url.Host == "" {
		return nil, fmt.Errorf("url %q: want http://HOST/PATH or https://HOST/PATH", query.Get("url"))
	}
	if text := query.Get("client"); text != "" {
		if r.client, err = netip.ParseAddr(text); err != nil {
			return nil, fmt.Errorf("client %q: want an IP address", text)
		}
		r.client = r.client.Unmap().WithZone("")
	}
	for _, text := range query["certificate"] {
		name, ok := route.ParseCertificateName(text)
		if !ok {
			return nil, fmt.Errorf("certificate %q: want any, cn=NAME, dns=NAME, uri=URI, or sha256= and 64 hexadecimal digits", text)
		}
		if r.certificate == nil {
			r.certificate = new(route.Certificate)
		}
		r.certificate.Add(name)
	}
	for _, line := range query["header"] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf(`header %q: want "NAME: VALUE"`, line)
		}
		if name = strings.ToLower(name); name == "host" {
			r.url.Host = strings.Trim(value, " \t")
			continue
		}
		r.fields = append(r.fields, [2]string{name, strings.Trim(value, " \t")})
	}
	return r, nil
}

// group returns the name of the group that the request gets by s, which may be nil; "" if
// there is no split, or by chance.
func (r *imagined) group(s *route.Split) string {
	if s == nil {
		return ""
	}
	client := r.clientKey(s.Key)
	if len(client) == 0 && len(s.Shares) > 0 {
		return ""
	}
	return s.Group(client).Name()
}

// target returns the route of the target that the request gets by a route, which is m itself
// without targets; an empty one by chance.
func (r *imagined) target(m *route.Route) *route.Route {
	if m.Weighted == nil {
		return m
	}
	if client := r.clientKey(m.Weighted.Key); len(client) > 0 {
		return m.Weighted.Choose(client).Route
	}
	return new(route.Route)
}

// clientKey returns what identifies the client; empty: the request does not say it.
func (r *imagined) clientKey(k route.SplitKey) (client []byte) {
	switch k.Source {
	case route.SplitCookie:
		line, _ := r.Field("cookie", 0)
		cookies, _ := http.ParseCookie(string(line)) // none if they are malformed
		for _, c := range cookies {
			if c.Name == route.SplitCookieName {
				client = []byte(c.Value)
			}
		}
	case route.SplitHeader:
		client, _ = r.Field(k.Header, 0)
	case route.SplitClientAddress:
		if r.client.IsValid() {
			client = []byte(r.client.String())
		}
	}
	return client
}

func (r *imagined) Method() []byte     { return []byte(r.method) }
func (r *imagined) Query() []byte      { return []byte(r.url.RawQuery) }
func (r *imagined) Scheme() string     { return r.url.Scheme }
func (r *imagined) Client() netip.Addr { return r.client }
func (r *imagined) Listener() string   { return r.listener }

func (r *imagined) Steps() *route.Steps { return &r.steps }

func (r *imagined) Certificate() *route.Certificate { return r.certificate }

func (r *imagined) Field(name string, from int) ([]byte, int) {
	for i := from; i < len(r.fields); i++ {
		if r.fields[i][0] == name {
			return []byte(r.fields[i][1]), i + 1
		}
	}
	return nil, -1
}
