package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// A webLeader answers HTTP with its name. It keeps the requests for /wait, and the rest of its
// answers to /half, until release is closed.
func webLeader(t *testing.T, name string, arrived chan<- string, release <-chan struct{}) (address string) {
	return serveOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			if c, err := websocket.Accept(w, r, nil); err == nil {
				defer c.CloseNow()
				for err == nil {
					var kind websocket.MessageType
					var message []byte
					if kind, message, err = c.Read(r.Context()); err == nil {
						err = c.Write(r.Context(), kind, message)
					}
				}
			}
			return
		}
		if r.URL.Path != "/" {
			if r.URL.Path == "/half" {
				io.WriteString(w, "half ")
				http.NewResponseController(w).Flush()
			}
			arrived <- name
			<-release
		}
		io.WriteString(w, name)
	})
}

// Requests to a service with one leader: what is in flight when that changes ends or may finish, as
// the service wants, and new requests go to the next one or are refused. While there is none, the
// API, the metrics and the logs say why.
func TestLeaderByHTTP(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		demotion, next string
		want           []string // answers to what was in flight
	}{
		{"cut", "b", []string{"GET /half: 200 half , cut", "GET /wait: 200 b", "POST /wait: 502 upstream_reset"}},
		{"cut", "a", []string{"GET /half: 200 half , cut", "GET /wait: 200 a", "POST /wait: 502 upstream_reset"}}, // as another one
		{"drain", "b", []string{"GET /half: 200 half a", "GET /wait: 200 a", "POST /wait: 200 a"}},
	} {
		testLeaderByHTTP(t, c.demotion, c.next, c.want)
	}
}

func testLeaderByHTTP(t *testing.T, demotion, next string, want []string) {
	consul := discoverytest.Start(t)
	arrived, release := make(chan string, 10), make(chan struct{})
	ports := make(map[string]int)
	for _, name := range []string{"a", "b"} {
		ports[name] = port(t, webLeader(t, name, arrived, release))
	}
	lead := func(names ...string) {
		a, b := discoverytest.Instance("db", "db/a", ports["a"]), discoverytest.Instance("db", "db/b", ports["b"])
		if slices.Contains(names, "a") {
			a.Service.Tags = []string{"primary"}
		}
		if slices.Contains(names, "b") {
			b.Service.Tags = []string{"primary"}
		}
		consul.Set("db", a, b)
	}
	log := filepath.Join(t.TempDir(), "access.log")
	text := fmt.Sprintf(`consul: { addresses: [%q] }
access_log: { path: %q }
listeners: [{ name: web, address: "127.0.0.1:0" }, { name: db, address: "127.0.0.1:0", protocol: tcp, service: db }]
routes: [{ service: db }]
services: { db: { consul: { leader: { tag: primary, on_demotion: %s } }, drain: { timeout: 1h }`, consul.URL(), log, demotion)
	lead("a")
	r := start(t, text+", wait_for_peer: 1m } }\n")
	r.gets("/", "a")
	echoes := r.echo()
	answers := make(chan string, 10)
	for _, what := range []string{"GET /half", "GET /wait", "POST /wait"} {
		method, path, _ := strings.Cut(what, " ")
		request := r.request(method, r.url("web")+path, nil)
		go func() {
			response, err := r.client.Do(request)
			if err != nil {
				answers <- what + ": " + err.Error()
				return
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			text := cmp.Or(response.Header.Get("X-Sluice-Reason"), string(body))
			if err != nil {
				text += ", cut"
			}
			answers <- fmt.Sprintf("%s: %d %s", what, response.StatusCode, text)
		}()
		verify.Equal(t, <-arrived, "a", "%s: %s goes to", demotion, what)
	}
	lead()
	if demotion == "cut" {
		r.await("the WebSocket ends", func() bool { return !echoes() })
	}
	r.await("nobody leads", func() bool { return r.leader() == "" })
	lead(next)
	if demotion == "cut" {
		verify.Equal(t, <-arrived, next, "%s: what can be sent again goes to", demotion)
	}
	r.answers("/", next)
	close(release)
	var got []string
	for range want {
		got = append(got, <-answers)
	}
	slices.Sort(got)
	verify.Slices(t, got, want, "%s, then %s: what was in flight", demotion, next)
	verify.That(t, demotion == "cut" || echoes(), "%s: the WebSocket has ended", demotion)

	r.replace(strings.Replace(text, "on_demotion: drain", "on_demotion: cut", 1) + " } }\n") // counts from the next demotion on
	verify.That(t, demotion == "cut" || echoes(), "%s: the WebSocket has ended with a reload", demotion)
	for _, leaders := range [][]string{{"a", "b"}, nil} {
		lead(leaders...)
		r.await(fmt.Sprintf("%q claim", leaders), func() bool { return len(r.watchOf("db").Invalid) == len(leaders) && r.leader() == "" })
		refused := r.do(r.request(http.MethodGet, r.url("web"), nil))
		verify.Equal(t, refused.Header.Get("X-Sluice-Reason"), "no_leader", "%q claim: why a request is refused with %s", leaders, refused.Status)
		verify.Equal(t, r.connect("db").line(), "", "%q claim: a connection gets", leaders)
		verify.Contains(t, r.metrics(), fmt.Sprintf("\nsluice_discovery_invalid{service=\"db\"} %d\n", len(leaders)), "%q claim", leaders)
	}
	reasons := []string{"HTTP/1.1 / 503 no_leader", "TCP  503 no_leader"}
	if demotion == "cut" {
		reasons = []string{"HTTP/1.1 / 101 demoted", "HTTP/1.1 / 503 no_leader", "HTTP/1.1 /half 200 upstream_cut", "HTTP/1.1 /wait 502 upstream_reset", "TCP  503 no_leader"}
	}
	r.await("the access log says why", func() bool {
		var logged []string
		for line := range strings.Lines(string(verify.Result(os.ReadFile(log)).Must(t))) {
			var l struct {
				Proto, Target, Reason string
				Status                int
			}
			if json.Unmarshal([]byte(line), &l) == nil && l.Reason != "" {
				logged = append(logged, fmt.Sprintf("%s %s %d %s", l.Proto, l.Target, l.Status, l.Reason))
			}
		}
		slices.Sort(logged)
		return slices.Equal(slices.Compact(logged), reasons)
	})
}
