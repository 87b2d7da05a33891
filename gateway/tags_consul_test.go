package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/balancer"
	"sluice/test/consultest"
	"sluice/test/verify"
)

// TestTagsInConsul registers services with the common tags of fabio and of Traefik, a sidecar and
// a hostile service in a real Consul. Then it releases versions that want another path, one
// instance after the other: no request may fail.
func TestTagsInConsul(t *testing.T) {
	t.Parallel()
	consul := consultest.Start(t, consultest.Options{})
	agent := consul.Client().Agent()
	register := func(service, id, address string, tags ...string) {
		t.Helper()
		r := &api.AgentServiceRegistration{Name: service, ID: id, Address: "127.0.0.1", Port: port(t, address), Tags: tags}
		if service == "star" {
			r.Connect = &api.AgentServiceConnect{SidecarService: &api.AgentServiceRegistration{}}
		}
		verify.NoError(t, agent.ServiceRegister(r))
	}
	echo := func(name string) string {
		return serveOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name+" "+r.Host+r.URL.Path) })
	}
	register("star", "star-1", echo("star"), "urlprefix-star.example.com/", "urlprefix-www.example.com/star strip=/star", "urlprefix-old.example.com/ redirect=301,https://star.example.com$path")
	register("moon", "moon-1", echo("moon"), "traefik.enable=true",
		"traefik.http.routers.moon.rule=Host(`moon.example.com`) || Host(`www.example.com`) && PathPrefix(`/moon`)",
		"traefik.http.routers.moon.middlewares=strip", "traefik.http.middlewares.strip.stripprefix.prefixes=/moon",
		"traefik.http.services.moon.loadbalancer.passhostheader=false")
	register("evil", "evil-1", echo("evil"), "urlprefix-star.example.com/", "urlprefix-/", "urlprefix-x/\nroute del star",
		"traefik.enable=true", "traefik.http.routers.moon.rule=Host(`moon.example.com`", "traefik.http.services.moon.loadbalancer.server.port=1")
	r := start(t, fmt.Sprintf(`
consul: { addresses: [%q] }
catalog: { tags: [fabio, traefik], claims: [{ service: evil, hosts: [evil.example.com] }, { service: "[ms]*", hosts: ["*.example.com"] }] }
`, consul.URL()))
	for url, want := range map[string]string{
		"star.example.com/a":                 "star star.example.com/a",
		"www.example.com/star/a":             "star www.example.com/a",
		"www.example.com/moon/a":             "/a",
		"moon.example.com/a":                 "/a",
		"star-sidecar-proxy.example.com/new": "404",
		"x/":                                 "404",
	} {
		status, body := r.ask(url)
		if status == http.StatusNotFound {
			body = "404"
		}
		verify.That(t, strings.HasSuffix(body, want), "%s: %d %s, want %s", url, status, body, want)
	}
	r.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if status, _ := r.ask("old.example.com/a"); status != http.StatusMovedPermanently {
		t.Errorf("the redirect has the status %d", status)
	}

	instance := func(n int) {
		tag, path := "urlprefix-release.example.com/api strip=/api", "/x"
		if n/2%2 == 1 {
			tag, path = "urlprefix-release.example.com/api", "/api/x"
		}
		address := serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != path {
				http.Error(w, "want "+path+", not "+r.URL.Path, http.StatusTeapot)
			}
		})
		register("sun", fmt.Sprintf("sun-%d", n), address, tag)
	}
	instance(0)
	instance(1)
	r.await("release.example.com is served", func() bool { status, _ := r.ask("release.example.com/api/x"); return status == http.StatusOK })
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				t.Logf("%d requests", n)
				return
			default:
			}
			begin := time.Now()
			if status, body := r.ask("release.example.com/api/x"); status != http.StatusOK && time.Since(begin) < settling {
				t.Errorf("request %d: %d %s", n, status, body)
				return
			}
		}
	})
	defer asking.Wait()
	defer close(stop)
	pool := r.services.get("sun").pool
	for n := 2; n < 8; n++ {
		instance(n)
		id := fmt.Sprintf("sun-%d", n)
		r.await(id+" is used", func() bool {
			for _, p := range pool.Snapshot().All {
				if p.Instance().ID == id && p.State() == balancer.StateUp {
					return true
				}
			}
			return false
		})
		verify.NoError(t, agent.ServiceDeregister(fmt.Sprintf("sun-%d", n-2)))
		r.await("two instances are used", func() bool { return len(pool.Snapshot().All) == 2 })
	}
}
