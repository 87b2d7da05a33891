package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/proxy"
	"sluice/route"
)

// RouteAnswer is the body of /api/route: what a request would get, and why.
type RouteAnswer struct {
	// Listener is the one that gets the request. OtherListeners could get it too: none was named.
	Listener       string   `json:"listener"`
	OtherListeners []string `json:"other_listeners,omitempty"`
	Host           string   `json:"host"` // as routes compare it
	Path           string   `json:"path"`
	// Ends is what becomes of the request: one end, or several of which chance chooses one.
	Ends []End `json:"ends"`
	// Route is the chosen one; null: none, or sluice answers before it looks for one.
	Route *Route `json:"route"`
	// Candidates are the routes whose host and path match, in order; with ?all=true all.
	Candidates []Candidate `json:"candidates"`
	// OtherPath and OtherHost count the routes that do not match for this reason.
	OtherPath int `json:"other_path"`
	OtherHost int `json:"other_host"`
}

// End is what becomes of a request: an answer of sluice's own, or a peer gets it.
type End struct {
	Share float64 `json:"share"` // how often chance makes it so
	// Answer is sluice's own; null: one of Peers gets the request.
	Answer  *Answer `json:"answer,omitempty"`
	Service string  `json:"service,omitempty"` // empty: none
	Group   string  `json:"group,omitempty"`   // of the service's peers; empty: no split
	// Branch is the branch of the discovery chain that the request takes; null: none.
	Branch *Branch `json:"branch,omitempty"`
	// Peers are the ids of the peers of which one gets the request.
	Peers []string `json:"peers,omitempty"`
	// Depends are the answers of sluice's own that come instead, depending on what the question
	// does not say, in the order in which that is decided.
	Depends []Answer `json:"depends,omitempty"`
}

// Answer is an answer of sluice's own.
type Answer = proxy.Answer

// Candidate is a route, and why it gets the request or not.
type Candidate struct {
	Route
	Place   int    `json:"place"`             // in /api/routes, from 1
	Outcome string `json:"outcome"`           // chosen, later, condition, path, host
	Failing string `json:"failing,omitempty"` // the first condition that does not hold
}

// Listener is a listener for clients.
type Listener struct {
	proxy.ListenerOptions
	Port string // empty: a unix socket
}

// route answers /api/route?method=&url=&header=&client=&certificate=&listener=&all=.
func (h routeHandler) route(r *http.Request) (any, error) {
	query := r.URL.Query()
	u, q, err := newQuestion(query)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	answer := RouteAnswer{Ends: []End{}, Candidates: []Candidate{}}
	q.Listener, answer.OtherListeners, err = h.listenerFor(u, query.Get("listener"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	x, readings := h.Explain(q), h.readingsByName()
	answer.Listener, answer.Host, answer.Path = q.Listener.Name, x.Routes.Host, x.Routes.Path
	for i, v := range x.Routes.Verdicts {
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
		if v.Outcome == route.OutcomeChosen && x.Ends[0].Matched != nil {
			answer.Route = &c.Route
		}
		answer.Candidates = append(answer.Candidates, c)
	}
	for _, e := range x.Ends {
		answer.Ends = append(answer.Ends, h.describeEnd(e, readings))
	}
	return answer, nil
}

func (h routeHandler) describeEnd(e proxy.End, readings map[string]*reading.Service) End {
	end := End{Share: rounded(e.Share), Service: e.Service, Group: e.Group, Answer: e.Answer, Depends: e.Depends}
	end.Peers = each(e.Peers, func(p *balancer.Peer) string { return p.Instance().ID })
	if e.Branch >= 0 {
		all := describeChain(e.Matched.Router, readings)
		addActions(all, e.Matched.ServiceName(), h.Effective())
		end.Branch = &all[e.Branch]
	}
	if by := h.DeniedBy(e.Service); by != "" && e.Answer == nil {
		end.Answer, end.Peers = new(proxy.Denied(by)), nil
	}
	return end
}

// listenerFor returns the listener that gets a request for u: the one with that name, or the first
// one with its scheme, preferably at its port. others would do too.
func (h routeHandler) listenerFor(u *url.URL, name string) (l proxy.ListenerOptions, others []string, err error) {
	if c := h.Effective(); c != nil && name != "" {
		if want := c.WantListener(name); want != "" {
			return l, nil, fmt.Errorf("listener %q: %s", name, want)
		}
	}
	fits := slices.DeleteFunc(h.Listeners(), func(l Listener) bool { return l.Streams != nil || (l.TLS != nil) != (u.Scheme == "https") })
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	chosen := slices.IndexFunc(fits, func(l Listener) bool { return l.Name == name || name == "" && l.Port == port })
	switch {
	case len(fits) == 0, chosen < 0 && name != "":
		who := "no listener is"
		if name != "" {
			who = fmt.Sprintf("listener %q is not", name)
		}
		return l, nil, fmt.Errorf("url %q: %s for %s; where a proxy in front of sluice ends TLS, ask as it does: for http, with its address as client and X-Forwarded-Proto", u, who, u.Scheme)
	case chosen < 0:
		chosen = 0
	}
	for i, other := range fits {
		if i != chosen && name == "" {
			others = append(others, other.Name)
		}
	}
	return fits[chosen].ListenerOptions, others, nil
}

// newQuestion returns the question about the request of a query, without a listener, and its URL.
func newQuestion(query url.Values) (u *url.URL, q proxy.Question, err error) {
	if u, err = url.Parse(query.Get("url")); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, q, fmt.Errorf("url %q: want http://HOST/PATH or https://HOST/PATH", query.Get("url"))
	}
	if text := query.Get("client"); text != "" {
		if q.Client, err = netip.ParseAddr(text); err != nil {
			return nil, q, fmt.Errorf("client %q: want an IP address", text)
		}
		q.Client = q.Client.Unmap().WithZone("")
	}
	for _, text := range query["certificate"] {
		name, ok := route.ParseCertificateName(text)
		if !ok {
			return nil, q, fmt.Errorf("certificate %q: want any, cn=NAME, dns=NAME, uri=URI, or sha256= and 64 hexadecimal digits", text)
		}
		if q.Certificate == nil {
			q.Certificate = new(route.Certificate)
		}
		q.Certificate.Add(name)
	}
	host, fields := u.Host, ""
	for _, line := range query["header"] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") || strings.ContainsAny(line, "\r\n") {
			return nil, q, fmt.Errorf(`header %q: want "NAME: VALUE"`, line)
		}
		if strings.EqualFold(name, "host") {
			host = strings.Trim(value, " \t")
			continue
		}
		fields += name + ":" + value + "\r\n"
	}
	method := cmp.Or(query.Get("method"), http.MethodGet)
	q.Head = fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", method, u.RequestURI(), host, fields)
	return u, q, nil
}
