package gateway

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// A request that waits for a peer in the process that is replaced gets the first one, also if that
// is registered only when the new process serves: from Consul, where the old process has few
// connections, and from a file.
func TestUpgradeLosesNoRequestThatWaits(t *testing.T) {
	t.Parallel()
	for _, source := range []string{"consul", "file"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			address, path := origin(t, "late"), filepath.Join(t.TempDir(), "peers")
			consul := discoverytest.Start(t)
			consul.Set("star")
			verify.NoError(t, os.WriteFile(path, []byte("[]\n"), 0o600))
			text := fmt.Sprintf(`consul: { addresses: [%q] }
services:
  star: { %s, wait_for_peer: 1m }
routes: [{ service: star }]
shutdown: { grace: 1h }
`, consul.URL(), map[string]string{"consul": "consul: {}", "file": fmt.Sprintf("file: %q", path)}[source])
			old := start(t, text)
			pool := old.services.pool("star")
			old.client.Timeout = 0
			var status int
			var body string
			var request sync.WaitGroup
			request.Go(func() { status, body = old.get("/") })
			old.await("the request waits", func() bool { return pool.Admission.Pending() == 1 })
			next := old.upgrade(text, nil)
			consul.Set("star", star(t, 1, address))
			verify.NoError(t, os.WriteFile(path, []byte(address+"\n"), 0o600))
			next.awaitStatus("/", 200)
			request.Wait()
			verify.That(t, status == 200 && body == "late", "the old process answers %d %s", status, body)
		})
	}
}

// So does one that comes to the process that was replaced when the new one serves already, on a
// connection that its client has kept.
func TestUpgradeLosesNoRequestOfAKeptConnection(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star")
	text := fmt.Sprintf(`consul: { addresses: [%q] }
services:
  star: { consul: {}, wait_for_peer: 1m }
  other: { peers: [%q] }
routes: [{ service: star }, { path: /other, service: other }]
shutdown: { idle: 10m, grace: 1h }
`, consul.URL(), origin(t, "other"))
	replaced := make(chan struct{})
	old := newRunning(t, text)
	old.run(Options{Replaced: replaced})
	client := http.Client{Transport: new(http.Transport)}
	defer client.CloseIdleConnections()
	ask := func(path string) (status int, body string) { return read(client.Get(old.url("web") + path)) }
	old.awaitStatus("/other", 200)
	_, body := ask("/other")
	verify.Equal(t, body, "other", "the first request of the connection")
	old.upgrade(text, nil)
	close(replaced)
	var status int
	var request sync.WaitGroup
	request.Go(func() { status, body = ask("/") })
	old.await("the request waits", func() bool { return old.services.pool("star").Admission.Pending() == 1 })
	consul.Set("star", star(t, 1, origin(t, "late")))
	request.Wait()
	verify.That(t, status == 200 && body == "late", "the old process answers %d %s", status, body)
}
