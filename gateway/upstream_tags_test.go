package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// The protocol that tags ask for counts for the instances that were there before their tags were
// read, and when it changes, as does that of the file: the peers stay, and what they are asked from
// then on is asked by it.
func TestProtocolOfTagsCounts(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	const route = "sluice.route=star.example.com/"
	consul, address := discoverytest.Start(t), server.Listener.Addr().String()
	tagged(t, consul, "star", address, route, "sluice.upstream=protocol=h2c")
	text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice] }\n", consul.URL())
	r := start(t, text)
	r.await("the route is there", func() bool { status, _ := r.get("star.example.com/"); return status == http.StatusOK })
	r.gets("star.example.com/", "HTTP/2.0", "at first")
	tagged(t, consul, "star", address, route)
	r.answers("star.example.com/", "HTTP/1.1")
	peer := r.services.pool("star").Snapshot().All[0]
	r.replace(text + "services: { star: { consul: {}, upstream: { protocol: h2c } } }\n")
	r.gets("star.example.com/", "HTTP/2.0", "by the file")
	verify.That(t, r.services.pool("star").Snapshot().All[0] == peer, "there is another peer")
	next := r.upgrade(text+"services: { star: { consul: {}, upstream: { protocol: h2c } } }\n", nil)
	next.gets("star.example.com/", "HTTP/2.0", "in a new process")
}

// A reload that takes a dialect away leaves the routes of the others their instances, also while
// Consul is away.
func TestReloadWithFewerDialectsKeepsInstances(t *testing.T) {
	t.Parallel()
	const all, own = "sluice.route=star.example.com/", "sluice.route=star.example.com/own"
	consul := discoverytest.Start(t)
	consul.Set("star", withTags(t, "star", "star-1", origin(t, "first"), all, own, "urlprefix-f.example.com/"), withTags(t, "star", "star-2", origin(t, "second"), all))
	text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice, fabio] }\n", consul.URL())
	r := start(t, text)
	r.answers("star.example.com/own", "first")
	consul.Break(discoverytest.Fault{Drop: true})
	r.replace(strings.Replace(text, ", fabio", "", 1))
	r.gets("star.example.com/own", "first")
	r.refuses("f.example.com/", http.StatusNotFound)
}
