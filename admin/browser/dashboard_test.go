package browser

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// The page shows added, failing and removed instances without a reload.
func TestPageShowsPeersLive(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"live-1", "live-2"} {
		register(t, api.AgentServiceRegistration{Name: "live", ID: id, Port: startApp(t, id), Tags: []string{"v1", "blue"}, Meta: map[string]string{"zone": "b"}})
	}
	g := startSluice(t, options{consul: ", probation: 0s", services: `
services:
  fixed: { peers: ["127.0.0.1:9", "127.0.0.1:10 weight=3"] }
  live: { consul: { service: live } }
routes: [{ path: /, service: live }, { path: /fixed, service: fixed }]
`})
	p := open(t, g.AdminURL())

	p.await("both services", func() bool { return len(p.peers()) == 4 && p.text("#ready") == "ready" })
	verify.Slices(t, p.services(), []string{"fixed", "live"}, "services")
	got := p.peer("127.0.0.1:10")
	verify.That(t, got.Weight == "3" && got.State == "up" && got.Service == "fixed", "a static peer is shown as %+v", got)
	got = p.peer("live-1")
	verify.That(t, strings.HasPrefix(got.Address, "127.0.0.1:") && got.State == "up" &&
		got.Tags == "v1, blue, zone=b" && got.Why == "" &&
		strings.HasPrefix(got.Node, "node-") && strings.HasSuffix(got.Node, " (dc1)"),
		"a peer is shown as %+v", got)
	p.await("the configuration", func() bool { return strings.HasPrefix(p.text("#config"), "configuration 1 from ") })
	verify.That(t, !p.visible("#replicas") && !p.visible("#login"),
		"replicas or a field for the token are shown, and there are none")

	g.send(t, 10)
	p.await("10 requests are counted", func() bool {
		var n int
		for _, id := range []string{"live-1", "live-2"} {
			var requests int
			fmt.Sscan(p.peer(id).Requests, &requests)
			n += requests
		}
		return n == 10
	})

	check(t, "live-2", api.HealthCritical, "disk is full")
	p.await("live-2 is unhealthy, and why", func() bool {
		got := p.peer("live-2")
		return got.State == "unhealthy" && strings.Contains(got.Why, "disk is full")
	})
	title := "(1) sluice " + strings.TrimPrefix(g.AdminURL(), "http://")
	p.await("services with problems first", func() bool {
		service := p.text("#services .service")
		return slices.Equal(p.services(), []string{"live", "fixed"}) && p.peers()[0].Peer == "live-2" &&
			strings.Contains(service, "1 of 2 serve") && strings.Contains(service, "1 unhealthy") &&
			evaluate[string](p, "document.title") == title
	})

	check(t, "live-2", api.HealthPassing, "")
	p.await("live-2 is up again", func() bool { got := p.peer("live-2"); return got.State == "up" && got.Why == "" })
	deregister(t, "live-1")
	p.await("live-1 is removed", func() bool { return p.peer("live-1") == peer{} })
	register(t, api.AgentServiceRegistration{Name: "live", ID: "live-3", Port: startApp(t, "live-3")})
	p.await("live-3 is added", func() bool { return p.peer("live-3").State == "up" })
	deregister(t, "live-3")
	deregister(t, "live-2")
	p.await("a service without peers", func() bool {
		return strings.Contains(p.text("#services .service"), "No peers: requests are answered with 503.")
	})
}

// Without Consul, the page shows which services are stale, and why.
func TestStaleService(t *testing.T) {
	t.Parallel()
	register(t, api.AgentServiceRegistration{Name: "stale", ID: "stale-1", Port: startApp(t, "stale-1")})
	relay := consultest.StartRelay(t, consul.HTTPAddress())
	g := startSluice(t, options{url: relay.URL(), services: `
services: { stale: { consul: { service: stale } } }
routes: [{ path: /, service: stale }]
`})
	p := open(t, g.AdminURL())
	p.await("the peer", func() bool { return p.peer("stale-1").State == "up" })
	relay.Cut()
	p.await("it is stale, and why", func() bool {
		text := p.text("#services .service")
		return strings.Contains(text, `consul service "stale": stale for`) && strings.Contains(text, "the peers do not change: ")
	})
	verify.Equal(t, p.peer("stale-1").State, "up", "the peer stays")
	relay.Heal()
	p.await("it is fresh again", func() bool { return !strings.Contains(p.text("#services .service"), "stale for") })
}

// An instance that the registry has lost is used until it fails, and the page says so.
func TestHeldInstance(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"held-1", "held-2"} {
		register(t, api.AgentServiceRegistration{Name: "held", ID: id, Port: startApp(t, id)})
	}
	g := startSluice(t, options{services: "services: { held: { consul: {} } }\nroutes: [{ service: held }]\n"})
	p := open(t, g.AdminURL())
	p.await("both peers", func() bool { return len(p.peers()) == 2 })
	const note = "2 instances on probation: missing from the registry, used until they fail."
	text := p.text("#services .service")
	verify.That(t, !strings.Contains(text, "probation"), "nothing is lost, and the service says %q", text)
	deregister(t, "held-1")
	deregister(t, "held-2")
	p.await("both are held, and why", func() bool {
		for _, id := range []string{"held-1", "held-2"} {
			if got := p.peer(id); got.State != "up" || !strings.HasPrefix(got.Why, "consul: lost since 20") || !strings.HasSuffix(got.Why, ", used until it fails") {
				return false
			}
		}
		return strings.Contains(p.text("#services .notes"), note)
	})
	g.send(t, 2)
	register(t, api.AgentServiceRegistration{Name: "held", ID: "held-3", Port: startApp(t, "held-3")})
	register(t, api.AgentServiceRegistration{Name: "held", ID: "held-4", Port: startApp(t, "held-4")})
	p.await("others are there, and nothing is held", func() bool {
		return p.peer("held-3").State == "up" && p.peer("held-1") == peer{} && p.text("#services .notes") == ""
	})
}

// Without sluice, the page shows the last values, marked as old. It continues when sluice is back,
// and so does the feed.
func TestPageWithoutSluice(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: "services: { fixed: { peers: ['127.0.0.1:9'] } }\nroutes: [{ path: /, service: fixed }]\n"})
	p := open(t, g.AdminURL(), "net::ERR_")
	p.await("the peer, and the start", func() bool { return len(p.peers()) == 1 && len(p.events()) == 4 && evaluate[bool](p, "live") })
	verify.NoError(t, g.Stop())
	p.await("the values are marked as old", func() bool {
		return p.text("#ready") == "no answer from sluice: the values are old" && evaluate[bool](p, `document.body.className === "old"`)
	})
	verify.Equal(t, len(p.peers()), 1, "peers are shown")
	p.await("the feed is interrupted", func() bool { return strings.Contains(p.text("#happened-count"), "the feed is interrupted") })
	got := p.latest()
	verify.That(t, strings.HasPrefix(got, "sluice stops"), "the last event is %q", got)
	g.start(t)
	p.await("the present values", func() bool { return p.text("#ready") == "ready" && evaluate[bool](p, `document.body.className === ""`) })
	p.await("the events of the new process", func() bool {
		return evaluate[bool](p, "live") && p.latest() == "sluice is ready" && strings.HasPrefix(p.text("#happened-count"), "10 events")
	})
}

// The page shows a refused configuration with its errors.
func TestRefusedConfiguration(t *testing.T) {
	t.Parallel()
	g := startSluice(t, options{services: "services: { fixed: { peers: ['127.0.0.1:9'] } }\nroutes: [{ path: /, service: fixed }]\n"})
	p := open(t, g.AdminURL())
	right := g.read(t)
	g.write(t, strings.ReplaceAll(right, "peers:", "pears:"))
	p.await("it was refused, and why", func() bool {
		text := p.rest("#config")
		return strings.Contains(text, "a newer one was refused: ") && strings.Contains(text, "pears")
	})
	g.write(t, strings.ReplaceAll(right, "127.0.0.1:9", "127.0.0.1:10"))
	p.await("the next one is in use", func() bool {
		text := p.rest("#config")
		return strings.HasPrefix(text, "configuration 2 ") && !strings.Contains(text, "refused") && p.peer("127.0.0.1:10").State == "up"
	})
}

// With a token, the page shows nothing before it has the token. It needs no second input after a
// reload.
func TestToken(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/token"
	writeFile(t, file, "s3cret\n")
	g := startSluice(t, options{admin: fmt.Sprintf("token_file: %q", file), services: "services: { fixed: { peers: ['127.0.0.1:9'] } }\nroutes: [{ path: /, service: fixed }]\n"})
	p := open(t, g.AdminURL(), "the server responded with a status of 401")
	p.await("the field for the token", func() bool { return p.text("#ready") == "a token is needed" && p.visible("#login") })
	verify.That(t, len(p.services()) == 0 && !p.visible("#search"), "something is shown without a token")
	p.typeKeys("wrong" + kb.Enter) // the field has the focus
	p.await("the token is refused", func() bool { return p.text("#ready") == "this token is not accepted" && p.visible("#login") })
	p.retype("#token", "s3cret"+kb.Enter)
	p.await("the peer", func() bool { return len(p.peers()) == 1 && !p.visible("#login") && p.visible("#search") })
	p.click(p.order("127.0.0.1:9"))
	p.typeKeys(kb.Enter)
	p.await("it is drained", func() bool { return p.peer("127.0.0.1:9").State == "draining" })
	p.do(chromedp.Reload())
	p.await("the peer, without the field for the token", func() bool { return len(p.peers()) == 1 && !p.visible("#login") })
	for _, path := range p.paths() {
		verify.That(t, !strings.Contains(path, "s3cret"), "the token is in a URL: %s", path)
	}
}

// The page shows all replicas, and their differences.
func TestReplicas(t *testing.T) {
	t.Parallel()
	secret := t.TempDir() + "/secret"
	writeFile(t, secret, "common\n")
	o := options{
		consul:   fmt.Sprintf(`, register: { service: sluice-page, replica_token_file: %q, check: { interval: 1s } }`, secret),
		services: "discovery: { allow_local: true }\nservices: { fixed: { peers: ['127.0.0.1:9'] } }\nroutes: [{ path: /, service: fixed }]\n",
	}
	a, b := startSluice(t, o), startSluice(t, o)
	p := open(t, a.AdminURL())
	replicas := func() int { return evaluate[int](p, `document.querySelectorAll("#replicas tbody").length`) }
	p.await("both replicas, which agree", func() bool {
		return p.rest("#converged") == "agree" && replicas() == 2 && strings.Count(p.text("#replicas table"), " (this one)") == 1
	})
	b.write(t, strings.ReplaceAll(b.read(t), "127.0.0.1:9", "127.0.0.1:10"))
	p.await("in what they differ", func() bool {
		notes := p.text("#replicas .notes")
		return p.rest("#converged") == "do not agree" && strings.Contains(notes, "configuration") && strings.Contains(notes, "the instances differ")
	})
	verify.NoError(t, b.Stop())
	p.await("one is left, which agrees with itself", func() bool { return p.rest("#converged") == "agree" && replicas() == 1 })
}
