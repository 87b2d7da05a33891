package admin

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/operator"
	"sluice/test/verify"
)

// post sends a POST request from this machine.
func post(t testing.TB, h http.Handler, path string, header ...string) (int, string) {
	t.Helper()
	return ask(t, h, http.MethodPost, "http://127.0.0.1:8081"+path, header...)
}

// obeyed gives an order, which must be accepted, and returns the answer.
func obeyed(t testing.TB, h http.Handler, path string) Operated {
	t.Helper()
	status, body := post(t, h, path)
	verify.Require(t, status == http.StatusOK, "%s: got %d %s", path, status, body)
	return decode[Operated](t, body)
}

// refused gives an order, which must be refused with a status and a reason, and returns that.
func refused(t testing.TB, h http.Handler, path string, want int, header ...string) (reason string) {
	t.Helper()
	status, body := post(t, h, path, header...)
	reason = errorOf(t, body)
	verify.That(t, status == want && reason != "", "%s %q: got %d %s, want %d", path, header, status, body, want)
	return reason
}

// starOf returns a service star, and an API with it.
func starOf(t testing.TB, set ...discovery.Instance) (*balancer.Pool, http.Handler) {
	t.Helper()
	pool := newPool(t, "star", set...)
	return pool, handlerOf(Options{Services: Services{Pools: poolsOf(pool)}})
}

func TestDrainAndEnable(t *testing.T) {
	pool := newPool(t, "star", instance("star", "a", "10.0.0.1"), instance("star", "b/1 ü", "10.0.0.2"))
	h := handlerOf(Options{Services: Services{Pools: poolsOf(newPool(t, "other", instance("star", "a", "10.0.0.1")), pool)}})
	flying := []balancer.Token{pick(t, pool), pick(t, pool)}

	got := obeyed(t, h, "/api/peers/star/b%2F1%20%C3%BC/drain?why=new+disk")
	verify.That(t, got.Peer != nil && got.Peer.State == "draining" && got.ID == "b/1 ü" && got.Node == "n" && got.Address == "10.0.0.2:80" && slices.Equal(got.Peer.Reasons, []string{"drain: new disk"}), "got %+v", got)
	for range 20 {
		token := pick(t, pool)
		verify.Require(t, token.Peer.ID.ID == "a", "picked %v", token.Peer)
		token.Done(balancer.Outcome{})
	}
	verify.Slices(t, obeyed(t, h, "/api/peers/star/a/drain").Peer.Reasons, []string{"drain: by an operator"}, "reasons")
	for _, token := range flying {
		token.Done(balancer.Outcome{})
	}
	for range 2 {
		verify.Equal(t, obeyed(t, h, "/api/peers/star/a/enable").Peer.State, "up", "the peer")
	}
	verify.Equal(t, peerNamed(t, h, "other", "a").State, "up", "the peer of the same id in another service")
}

// A service of sluice is a part of one in Consul, which has another name: orders have sluice's
// name.
func TestOrdersAboutAServiceWithAnotherName(t *testing.T) {
	pool := newPool(t, "blue", instance("star", "a", "10.0.0.1"), instance("star", "b", "10.0.0.2"))
	blue := &config.Config{Services: map[string]config.Service{"blue": {Consul: &config.ConsulService{ServiceOptions: consulsource.ServiceOptions{Service: "star"}}}}}
	h := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}, Routes: Routes{Effective: func() *config.Config { return blue }}})
	for _, tt := range []struct{ order, state string }{
		{"drain", "draining"}, {"weight?weight=3", "draining"}, {"enable", "up"}, {"weight/release", "up"},
	} {
		got := obeyed(t, h, "/api/peers/blue/a/"+tt.order)
		verify.That(t, got.Service == "blue" && got.Peer != nil && got.Peer.State == tt.state, "%s: got %+v", tt.order, got)
	}
	for _, rest := range [][]discovery.Instance{{instance("star", "b", "10.0.0.2")}, nil} { // with nil, no instance tells the other name
		post(t, h, "/api/peers/blue/a/drain")
		pool.Apply(rest)
		s := getJSON[[]Service](t, h, "/api/services")[0]
		verify.That(t, len(s.StandingDrains) == 1, "the drain of an absent instance, with %d others: %+v", len(rest), s.StandingDrains)
		verify.That(t, obeyed(t, h, "/api/peers/blue/a/enable").Peer == nil, "an absent instance is a peer")
		pool.Apply([]discovery.Instance{instance("star", "a", "10.0.0.1")})
	}
}

func peerNamed(t *testing.T, h http.Handler, service, id string) Peer {
	t.Helper()
	for _, p := range getJSON[[]Peer](t, h, "/api/peers?service="+service) {
		if p.ID == id {
			return p
		}
	}
	t.Fatalf("no peer %s/%s", service, id)
	return Peer{}
}

// The default id of an instance in Consul is the name of the service, the same on each node.
func TestAnOrderMustMatchOnePeer(t *testing.T) {
	first, second := instance("star", "star", "10.0.0.1"), instance("star", "star", "10.0.0.2")
	second.Node = "m"
	_, h := starOf(t, first, second)
	want := `service "star" has several peers "star": choose one with ?node= or ?address= (n 10.0.0.1:80, m 10.0.0.2:80)`
	verify.Equal(t, refused(t, h, "/api/peers/star/star/drain", http.StatusConflict), want, "the reason")
	for _, p := range getJSON[[]Peer](t, h, "/api/peers") {
		verify.Equal(t, p.State, "up", "%s", p.Address)
	}
	for query, address := range map[string]string{"node=m": "10.0.0.2:80", "address=10.0.0.1:80": "10.0.0.1:80"} {
		verify.Equal(t, obeyed(t, h, "/api/peers/star/star/drain?"+query).Peer.Address, address, "%s", query)
	}
}

func TestADrainOfAnAbsentInstanceIsListedAndEnded(t *testing.T) {
	pool, h := starOf(t, instance("star", "a", "10.0.0.1"))
	post(t, h, "/api/peers/star/a/drain?why=upgrade")
	pool.Apply(nil)
	drains := getJSON[[]Service](t, h, "/api/services")[0].StandingDrains
	verify.Require(t, len(drains) == 1 && !drains[0].Since.IsZero(), "standing drains %+v", drains)
	d := drains[0]
	verify.That(t, d.ID == "a" && d.Node == "n" && d.Address == "10.0.0.1:80" && d.Why == "upgrade", "standing drain %+v", d)
	refused(t, h, "/api/peers/star/a/drain", http.StatusNotFound)
	verify.That(t, obeyed(t, h, "/api/peers/star/a/enable").Peer == nil, "an absent instance is a peer")
	drains = getJSON[[]Service](t, h, "/api/services")[0].StandingDrains
	verify.That(t, len(drains) == 0, "standing drains %+v after enable", drains)
}

func TestRefusedOrders(t *testing.T) {
	token := ""
	pool := newPool(t, "star", instance("star", "a", "10.0.0.1"))
	h := handlerOf(Options{Services: Services{Pools: poolsOf(pool)}, Tokens: func() Tokens { return Tokens{Operate: token} }})
	const path = "/api/peers/star/a/drain"
	for _, test := range []struct {
		what, path string
		want       int
		header     []string
	}{
		{"no such service", "/api/peers/nope/a/drain", http.StatusNotFound, nil},
		{"no such peer", "/api/peers/star/b/drain", http.StatusNotFound, nil},
		{"no such node", path + "?node=elsewhere", http.StatusNotFound, nil},
		{"long reason", path + "?why=" + strings.Repeat("x", operator.MaxText+1), http.StatusBadRequest, nil},
		{"reason with an escape", path + "?why=a%1b[2J", http.StatusBadRequest, nil},
		{"another site", path, http.StatusForbidden, []string{"Sec-Fetch-Site", "cross-site"}},
		{"another origin", path, http.StatusForbidden, []string{"Origin", "https://evil.example"}},
		{"no token", path, http.StatusUnauthorized, nil},
		{"wrong token", path, http.StatusUnauthorized, []string{"Authorization", "Bearer s3cret2"}},
	} {
		if token = ""; test.want == http.StatusUnauthorized {
			token = "s3cret"
		}
		refused(t, h, test.path, test.want, test.header...)
		verify.Require(t, len(pool.Snapshot().Eligible) == 1, "%s: the peer was drained", test.what)
	}
	token = ""
	status, body := get(t, h, "http://127.0.0.1:8081"+path)
	verify.That(t, status == http.StatusMethodNotAllowed && errorOf(t, body) != "", "GET: got %d %s", status, body)
	// What does not end by itself does not seem to.
	for _, path := range []string{
		"/api/ready/off", "/api/ready/on", "/api/log/debug", "/api/peers/star/a/enable", "/api/peers/star/a/weight/release", "/api/services/star/maintenance/off",
		"/api/nodes/n/enable", "/api/shares/star", "/api/shares/star/pause", "/api/shares/star/resume", "/api/shares/star/release",
	} {
		verify.Equal(t, refused(t, h, path+"?for=30m&share=0.1", http.StatusBadRequest), "for: this does not end by itself", "%s", path)
	}
	// By DNS rebinding.
	status, body = ask(t, h, http.MethodPost, "http://evil.example:8081"+path, "Origin", "http://evil.example:8081")
	verify.That(t, status == http.StatusForbidden && errorOf(t, body) != "", "a name of another site's: got %d %s", status, body)
	verify.Require(t, len(pool.Snapshot().Eligible) == 1, "the peer was drained")
	token = "s3cret"
	status, body = ask(t, h, http.MethodPost, "http://sluice.example:8081"+path, "Authorization", "Bearer s3cret")
	verify.That(t, status == http.StatusOK, "with the token: got %d %s", status, body)
}

func TestHostsThatNeedNoToken(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:8081": true, "[::1]:8081": true, "[::1]": true, "::1": true, "localhost": true, "LocalHost:1": true,
		"": false, "evil.example": false, "evil.example:8081": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Host = host
		verify.Equal(t, isLiteral(r.Host), want, "%q", host)
	}
}

func TestAWeightInPlaceOfTheRegistrys(t *testing.T) {
	_, h := starOf(t, instance("star", "a", "10.0.0.1"), instance("star", "b", "10.0.0.2"))
	p := obeyed(t, h, "/api/peers/star/a/weight?weight=5&why=bigger&by=root@vm&for=1h").Peer
	verify.Require(t, p != nil && p.Weight == 5 && p.State == "up" && len(p.Reasons) == 0 && len(p.Orders) == 1, "got %+v", p)
	o := p.Orders[0]
	verify.That(t, o.Kind == operator.Weight && o.Weight == 5 && o.Why == "bigger" && o.By == "root@vm" && o.Until.Sub(o.Since).Round(time.Minute) == time.Hour, "got %+v", o)
	for _, query := range []string{"", "?weight=0", "?weight=65536", "?weight=x", "?weight=5&for=x", "?weight=5&for=1ms", "?weight=5&for=-1h", "?weight=5&by=a%1b"} {
		refused(t, h, "/api/peers/star/b/weight"+query, http.StatusBadRequest)
	}
	verify.Equal(t, obeyed(t, h, "/api/peers/star/a/weight/release").Peer.Weight, 1, "the weight after the release")
	for _, p := range getJSON[[]Peer](t, h, "/api/peers") {
		verify.That(t, p.Weight == 1 && len(p.Orders) == 0, "afterwards %+v", p)
	}
}

func TestADrainOfANode(t *testing.T) {
	a, b, c, d := instance("star", "a", "10.0.0.1"), instance("star", "b", "10.0.0.2"), instance("moon", "c", "10.0.0.1"), instance("moon", "d", "10.0.0.4")
	b.Node, d.Datacenter = "m", "dc2" // d is on another node n
	star := newPool(t, "star", a, b)
	h := handlerOf(Options{Services: Services{Pools: poolsOf(star, newPool(t, "moon", c, d))}})
	draining := func(want ...string) {
		t.Helper()
		got := ids(getJSON[[]Peer](t, h, "/api/peers?state=draining"))
		verify.That(t, slices.Equal(got, append([]string{}, want...)), "draining %q, want %q", got, want)
	}
	for path, want := range map[string]int{"x/drain": http.StatusNotFound, "n/drain": http.StatusConflict, "x/enable": http.StatusNotFound, "n/drain?datacenter=dc3": http.StatusNotFound} {
		refused(t, h, "/api/nodes/"+path, want)
	}
	draining()
	status, body := post(t, h, "/api/nodes/n/drain?datacenter=dc2&why=disk")
	got := decode[OperatedNode](t, body)
	verify.That(t, status == http.StatusOK && got.Node == "n" && got.Datacenter == "dc2" && len(got.Peers) == 1 && slices.Equal(got.Peers[0].Reasons, []string{"drain: node n: disk"}), "got %d %s", status, body)
	draining("d")
	post(t, h, "/api/nodes/m/drain")
	draining("d", "b")
	e := instance("star", "e", "10.0.0.5")
	e.Node = "m"
	star.Apply([]discovery.Instance{a, b, e})
	draining("d", "b", "e")
	verify.Contains(t, refused(t, h, "/api/peers/star/b/enable", http.StatusConflict), "its node is drained: node m: by an operator", "enable of one peer")
	obeyed(t, h, "/api/peers/star/b/drain")
	verify.Equal(t, obeyed(t, h, "/api/peers/star/b/enable").Peer.State, "draining", "after the end of its own drain")
	all := getJSON[Orders](t, h, "/api/orders")
	verify.That(t, len(all.Orders) == 2 && !all.Shared && !all.Saved && all.Orders[0].Node == "m" && all.Orders[1].Datacenter == "dc2", "orders %+v", all)
	post(t, h, "/api/nodes/m/enable")
	post(t, h, "/api/nodes/n/enable")
	draining()
}
