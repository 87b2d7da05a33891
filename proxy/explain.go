package proxy

import (
	"cmp"
	"crypto/tls"
	"net/netip"
	"time"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route"
)

// A Question is a request that nobody sends: what would become of it?
type Question struct {
	Listener    ListenerOptions    // of the listener that would get it
	Head        []byte             // in HTTP/1.1
	Client      netip.Addr         // of the connection; the zero value: not known
	Certificate *route.Certificate // of the client; nil: not known
}

// An Explanation is what would become of a request.
type Explanation struct {
	Routes route.Explanation // without Verdicts: the head is malformed
	// Ends is what may become of it: one end for each choice that chance makes, up to maxEnds.
	Ends []End
}

// maxEnds bounds the ends of an Explanation.
const maxEnds = 50

// An End is what becomes of a request.
type End struct {
	Share   float64 // of all requests like this one
	Answer  *Answer // by sluice itself; nil: one of Peers gets the request
	Peers   []*balancer.Peer
	Service string       // "": none
	Group   string       // "": any
	Target  string       // what one of Peers gets as path and query
	Branch  int          // of the discovery chain of Matched's service; -1: none
	Matched *route.Route // nil: the request does not get as far as to a route
	// Depends are the answers of sluice's own that come instead, depending on what nobody knows of
	// the request, in the order in which that is asked.
	Depends []Answer
}

// An Answer is an answer of sluice's own.
type Answer struct {
	Status   int    `json:"status,omitempty"` // 0: not known before
	Reason   string `json:"reason"`
	Text     string `json:"text"`               // for people
	Location string `json:"location,omitempty"` // of a redirect
}

func answerOf(r *refusal.Refusal) Answer {
	return Answer{r.Status, r.Reason, r.Text, r.Field("Location")}
}

// Denied returns the answer to a request for a service that the mesh denies sluice. by says why.
func Denied(by string) Answer {
	r := *refusal.Intention
	r.Text = "denied by " + by
	return answerOf(&r)
}

// Explain answers q by the phases that serve requests. It waits for nothing, and nobody counts it.
func (s *Server) Explain(q Question) Explanation { return s.explain(q, nil) }

// ExplainBy is Explain by the routes of t in place of those in use. The other options are those in
// use.
func (s *Server) ExplainBy(t *route.Table, q Question) Explanation {
	return s.explain(q, &routing{Table: t})
}

func (s *Server) explain(q Question, instead *routing) (e Explanation) {
	l := &listener{ListenerOptions: q.Listener, server: s, instead: instead}
	c := &client{server: s, listener: l, remote: q.Client, address: addressText(q.Client)}
	if q.Certificate != nil {
		c.certificate = &clientCertificate{Certificate: q.Certificate}
	}
	routing, chances := l.routing(), &chances{share: 1}
	for again := true; again && len(e.Ends) < maxEnds; again = chances.next() {
		a := &asked{exchange: newExchange(), certificates: certificatesFor(q.Listener.TLS)}
		x := &a.request
		x.open(c)
		x.in, x.end, x.startTime, x.routing, a.route.chances = q.Head, len(q.Head), time.Now(), routing, chances
		if _, err := x.scan(); err != nil {
			return Explanation{Ends: []End{{Share: 1, Answer: new(answerOf(ofMalformed(err))), Branch: -1}}}
		}
		x.decide()
		if e.Ends == nil {
			e.Routes = x.routing.Explain(x.head.Authority(q.Head), x.head.Path(q.Head), x)
		}
		a.may(a.certificates == tls.RequireAndVerifyClientCert && q.Certificate == nil, noHandshake)
		if r := a.through(phases[:]); r != nil {
			a.end.Answer = new(answerOf(r))
		}
		a.end.Share, a.end.Matched, a.end.Branch = chances.share, a.route.matched, a.route.branch()
		if a.route.service != nil {
			a.end.Service = a.route.service.Name
		}
		if a.end.Share > 0 {
			e.Ends = append(e.Ends, a.end)
		}
	}
	return e
}

var (
	noHandshake     = refusal.New(0, "tls_handshake_failed", "the listener requires a certificate of its clients")
	challengeAnswer = refusal.New(200, refusal.ChallengeReason, "the answer to a challenge of ACME, while a certificate is ordered")
)

// certificatesFor returns which certificates of clients a listener asks for.
func certificatesFor(c *tls.Config) tls.ClientAuthType {
	if c != nil && c.GetConfigForClient != nil {
		c, _ = c.GetConfigForClient(new(tls.ClientHelloInfo))
	}
	if c == nil {
		return tls.NoClientCert
	}
	return c.ClientAuth
}

// asked is a question on its way through the phases.
type asked struct {
	*exchange
	certificates tls.ClientAuthType // which the listener asks for
	end          End
}

// through goes through phases, and returns the answer with which one ends the request.
func (a *asked) through(phases []phase) *refusal.Refusal {
	for i := range phases {
		var r *refusal.Refusal
		if p := &phases[i]; p.ask != nil {
			r = p.ask(a)
		} else {
			r = p.do(a.exchange)
		}
		if r != nil && !a.isOpen(r) {
			return r
		}
		a.may(r != nil, r)
	}
	return nil
}

// may notes, if it is so, that an answer depends on what nobody knows.
func (a *asked) may(so bool, r *refusal.Refusal) {
	if so {
		a.end.Depends = append(a.end.Depends, answerOf(r))
	}
}

// isOpen reports whether an answer depends on what the question leaves open.
func (a *asked) isOpen(r *refusal.Refusal) bool {
	anybody := !a.request.identity.client.IsValid()
	switch r.Reason {
	case refusal.ClientDenied.Reason:
		return anybody
	case "maintenance":
		m := a.route.service.Pool.Maintenance.Load()
		return anybody && (m == nil || len(m.Except) > 0)
	case refusal.NoCertificate.Reason, refusal.OtherCertificate.Reason:
		return a.certificates != tls.NoClientCert && a.request.client.certificate == nil
	}
	return false
}

// pass is for phases that decide nothing that is known before, or whose answers another one notes.
func (a *asked) pass() *refusal.Refusal { return nil }

// challenge does not look for the answer: another replica may have it.
func (a *asked) challenge() *refusal.Refusal {
	a.may(isChallenge(a.exchange), challengeAnswer)
	return nil
}

func (a *asked) prepare() *refusal.Refusal { return a.through(preparations[:]) }

func (a *asked) limitRate() *refusal.Refusal {
	limit := a.route.actions.RateLimit
	a.may(limit != nil && limit.Claim == nil && limit.Key.Source != route.HashAnswer, refusal.RateLimited)
	return nil
}

func (a *asked) limitBody() *refusal.Refusal {
	head := &a.request.head
	a.may(a.route.bodyLimit() > 0 && !head.HasBody() && head.Method != http1.MethodGet && head.Method != http1.MethodHead, refusal.Of(http1.ErrBodyTooLong))
	return limitBody(a.exchange)
}

// authenticate is for the password and the token.
func (a *asked) authenticate() *refusal.Refusal {
	actions := a.route.actions
	a.may(actions.BasicAuth != nil, refusal.Unauthorized)
	a.may(actions.JWT != nil, refusal.TokenMissing)
	a.may(actions.JWT != nil && actions.RateLimit != nil && actions.RateLimit.Claim != nil, refusal.RateLimited)
	return nil
}

// askAuthServer does not ask what the server would decide: it may decide otherwise next time.
func (a *asked) askAuthServer() *refusal.Refusal {
	f := a.route.actions.ForwardAuth
	if f == nil {
		return nil
	}
	denied := *refusal.AuthDenied
	if f.DecidesService || f.DecidesGroup || f.DecidesPath {
		denied.Text += ", or chooses another service, group or path"
	}
	a.may(true, &denied)
	a.may(a.route.actions.RateLimit != nil && a.route.actions.RateLimit.Key.Source == route.HashAnswer, refusal.RateLimited)
	if f.DecidesService {
		return a.route.maintenance()
	}
	return nil
}

// handle does not ask the handler: what it answers may differ next time.
func (a *asked) handle() *refusal.Refusal {
	if a.route.actions.Handler != nil {
		return refusal.Handled
	}
	return nil
}

// forward says which peers there are, and which limits, also those of shed.
func (a *asked) forward() *refusal.Refusal {
	service, query := a.route.service, &a.route.query
	peers, limits, err := service.Pool.Snapshot().Foresee(query)
	for _, limit := range limits {
		a.may(true, refusal.OfPick(limit, service.Pool, false))
	}
	if err != nil {
		r := *refusal.OfPick(err, service.Pool, query.Group != 0)
		if service.WaitForPeer > 0 {
			r.Text += ", and none comes within " + service.WaitForPeer.String()
		}
		return &r
	}
	a.end.Target = cmp.Or(string(a.route.target), string(a.request.head.OriginTarget(a.request.bytes())))
	if a.end.Peers = peers; a.route.way.Split != nil {
		a.end.Group = peers[0].Group().Name()
	}
	return nil
}

// branch returns the branch of a discovery chain that was taken; -1: none.
func (x *chosenRoute) branch() int {
	if x.matched != nil && x.matched.Router != nil {
		for i := range x.matched.Router.Ways {
			if way := &x.matched.Router.Ways[i]; x.way == way || x.splitter != nil && x.splitter == way.Weighted {
				return i
			}
		}
	}
	return -1
}

// chances make the choices of chance for a question: one after the other, until all were made. nil
// makes none.
type chances struct {
	choices []choice
	made    int     // of the choices, for the present exchange
	share   float64 // of all requests, that have these choices
}

type choice struct {
	chosen int
	shares []float64 // as they were at first: they add up, whatever peers come and go
}

// decide reports whether c decides what chance would, for a client without the key k, or with
// another one for each request.
func (c *chances) decide(x *chosenRoute, k route.SplitKey) bool {
	switch {
	case c == nil:
		return false
	case k.Source == route.SplitClientAddress:
		return !x.request.identity.client.IsValid()
	}
	x.newClient = 0
	return len(x.clientKey(k, x.request.bytes(), nil)) == 0 || x.newClient != 0
}

func (c *chances) target(w *route.Weighted) *route.Route {
	return w.Targets[c.choose(w.Shares())].Route
}

func (c *chances) group(s *route.Split) *balancer.Group {
	all := s.All()
	var sizes []float64
	for _, share := range all {
		sizes = append(sizes, share.Size)
	}
	return all[c.choose(sizes)].Group
}

// choose returns what is chosen of things with these shares.
func (c *chances) choose(shares []float64) int {
	if c.made == len(c.choices) {
		c.choices = append(c.choices, choice{shares: shares})
	}
	made := &c.choices[c.made]
	c.made++
	c.share *= made.shares[made.chosen]
	return made.chosen
}

// next goes on to the next choice, for another exchange, and reports whether there is one.
func (c *chances) next() bool {
	for c.made, c.share = 0, 1; len(c.choices) > 0; c.choices = c.choices[:len(c.choices)-1] {
		last := &c.choices[len(c.choices)-1]
		if last.chosen++; last.chosen < len(last.shares) {
			return true
		}
	}
	return false
}
