package mesh

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/meshtest"
	"sluice/test/sluicetest"
	"sluice/test/verify"
)

const intentionsConfiguration = `consul: { addresses: [URL], token: TOKEN }
listeners:
- { name: web, address: "127.0.0.1:0" }
- { name: db, address: "127.0.0.1:0", protocol: tcp, service: db }
services:
  web: { consul: { connect: true }, timeouts: { connect: 10s }, health: { active: { path: /, interval: 100ms, unhealthy_threshold: 1 } } }
  steady: { consul: { connect: true }, timeouts: { connect: 10s } }
  api: { consul: { connect: true }, timeouts: { connect: 10s } }
  db: { consul: { connect: true }, timeouts: { connect: 10s } }
routes:
- { path: /web, service: web }
- { path: /steady, service: steady }
- { path: /api, service: api }
`

// With a real Consul, its built-in proxy and a native service: when an intention turns to deny a
// service, each of its requests is answered 200 or 403 intention, and never anything else; its
// WebSocket ends, its instances stay up although their checks fail, and other services lose
// nothing. With servers that behave as Envoy: a denied connection of TCP ends, and goes again when
// it is allowed, and a 403 by a permission passes as it is.
func TestAFlippedIntentionIsExplained(t *testing.T) {
	mesh := meshtest.Start(t, consultest.Options{ACLs: true})
	for _, service := range []string{"web", "steady", "api"} {
		mesh.SetProtocol(t, service, "http")
	}
	for _, service := range []string{"web", "steady", "db"} {
		mesh.Intend(t, service, meshtest.Allow("sluice"))
	}
	mesh.Intend(t, "api", meshtest.ByRequest("sluice",
		&api.IntentionPermission{Action: api.IntentionActionDeny, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/api/secret"}},
		&api.IntentionPermission{Action: api.IntentionActionAllow, HTTP: &api.IntentionHTTPPermission{PathPrefix: "/"}}))
	for _, service := range []string{"web", "steady"} {
		mesh.Sidecar(t, meshtest.Service{Name: service, ID: service + "-1", Port: meshtest.ServeHTTP(t, service+"-1").Port})
		mesh.Native(t, meshtest.Service{Name: service, ID: service + "-native"})
		mesh.AwaitPassing(t, service, 2)
	}
	mesh.Envoy(t, meshtest.Service{Name: "db", ID: "db-1"}, "tcp")
	mesh.Envoy(t, meshtest.Service{Name: "api", ID: "api-1"}, "http")
	_, token, err := mesh.NewToken("sluice", verify.Result(consultest.DocumentedPolicy("../../docs/mesh.md", "## ACLs")).Must(t))
	verify.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	verify.NoError(t, os.WriteFile(file, []byte(strings.NewReplacer("URL", mesh.URL(), "TOKEN", token.SecretID).Replace(intentionsConfiguration)), 0o600))
	dir := t.TempDir()
	verify.NoError(t, sluicetest.Build(t.Context(), dir, "sluice"))
	s, err := sluicetest.Start(t.Context(), sluicetest.Options{
		Program: filepath.Join(dir, "sluice"), Admin: sluicetest.Any, Args: []string{"--config", file}, Log: filepath.Join(dir, "sluice.log"),
	})
	verify.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of sluice's log:\n%s", s.LogTail(60))
		}
		verify.Succeeds(t, s.Stop())
	})
	allUp := func() bool {
		peers, err := s.Peers(t.Context())
		up := 0
		for _, p := range peers {
			if p.State == "up" {
				up++
			}
		}
		return err == nil && up == 6
	}
	consultest.Await(t, "all peers are up", allUp)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	get := func(path string) (status int, reason, body string) {
		r, err := client.Get(s.URL() + path)
		if err != nil {
			return 0, err.Error(), ""
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return 0, err.Error(), ""
		}
		return r.StatusCode, r.Header.Get("X-Sluice-Reason"), string(text)
	}

	status, reason, body := get("/api/secret")
	verify.That(t, status == 403 && reason == "" && strings.Contains(body, "RBAC: access denied"), "by a permission: %d %s %q", status, reason, body)
	status, _, _ = get("/api/open")
	verify.Equal(t, status, 200, "by another permission")

	open := func(path string) *websocket.Conn {
		t.Helper()
		c, _, err := websocket.Dial(t.Context(), strings.Replace(s.URL(), "http", "ws", 1)+path, nil)
		verify.NoError(t, err)
		t.Cleanup(func() { c.CloseNow() })
		return c
	}
	echoes := func(c *websocket.Conn) bool {
		if c.Write(t.Context(), websocket.MessageText, []byte("hello")) != nil {
			return false
		}
		_, got, err := c.Read(t.Context())
		return err == nil && string(got) == "hello"
	}
	flipped, steady := open("/web"), open("/steady")
	verify.That(t, echoes(flipped) && echoes(steady), "a WebSocket does not echo")

	var load sync.WaitGroup
	stop := make(chan struct{})
	var denied, told atomic.Int64 // Unix nanoseconds of the flip, and of the first 403
	for _, path := range []string{"/web", "/web", "/web", "/steady"} {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, reason, body := get(path)
				switch {
				case status == 200:
				case path == "/web" && status == 403 && reason == "intention" && denied.Load() > 0 && strings.Contains(body, "consul intention create -allow -replace sluice web"):
					told.CompareAndSwap(0, time.Now().UnixNano())
				default:
					t.Errorf("%s: %d %s %q", path, status, reason, body)
				}
			}
		})
	}
	denied.Store(time.Now().UnixNano())
	mesh.Intend(t, "web", meshtest.Deny("sluice"))
	consultest.Await(t, "a 403", func() bool { return told.Load() > 0 })
	t.Logf("explained after %v", time.Duration(told.Load()-denied.Load()))
	verify.That(t, !echoes(flipped), "the WebSocket of the denied service is open")
	verify.That(t, echoes(steady), "another WebSocket has ended")
	for range 5 { // some checks
		consultest.Await(t, "a 403", func() bool { status, _, _ := get("/web"); return status == 403 })
	}
	close(stop)
	load.Wait()
	verify.That(t, allUp(), "an instance is out of use")
	for path, want := range map[string]string{
		"/api/route?url=http://a/web": `"text": "denied by the intention sluice → web (precedence 9)"`, "/api/mesh": `"verdict": "denied"`,
		"/metrics": `sluice_mesh_intention{destination="web",verdict="denied"} 1`,
	} {
		r := verify.Result(http.Get(s.AdminURL() + path)).Must(t)
		text := verify.Result(io.ReadAll(r.Body)).Must(t)
		r.Body.Close()
		verify.Contains(t, string(text), want, "%s", path)
	}

	dial := func() (echoed bool) {
		c := verify.Result(net.Dial("tcp", s.Address("db"))).Must(t)
		defer c.Close()
		_, _ = io.WriteString(c, "hello")
		n, _ := io.ReadFull(c, make([]byte, len("hello")))
		return n > 0
	}
	verify.That(t, dial(), "a connection of TCP does not echo")
	mesh.Intend(t, "db", meshtest.Deny("sluice"))
	verify.That(t, !dial(), "a connection of TCP echoes, although it is denied")
	mesh.Intend(t, "db", meshtest.Allow("sluice"))
	verify.That(t, dial(), "a connection of TCP does not echo, although it is allowed")
}
