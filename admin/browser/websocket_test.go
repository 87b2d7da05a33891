package browser

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"sluice/test/sluicetest"
	"sluice/test/testcert"
)

// startWebSocketApp runs an app with a page and a WebSocket at /ws, which says by which
// protocol the request came, and sends back what it gets.
func startWebSocketApp(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ws" {
			io.WriteString(w, "<!doctype html><title>page</title><link rel=icon href=data:,>")
			return
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(2 << 20)
		for err := c.Write(r.Context(), websocket.MessageText, []byte(r.Header.Get("Via"))); err == nil; {
			var message []byte
			if _, message, err = c.Read(r.Context()); err == nil {
				err = c.Write(r.Context(), websocket.MessageText, message)
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// A page that came over HTTP/2 opens its WebSockets on the same connection.
func TestWebSocketOverHTTP2(t *testing.T) {
	dir := t.TempDir()
	certificate := testcert.Write(t, dir, "127.0.0.1")
	file := filepath.Join(dir, "sluice.yaml")
	err := os.WriteFile(file, fmt.Appendf(nil, `access_log: { path: off }
shutdown: { delay: 0s, grace: 1s }
listeners: [{ name: web, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }]
services: { app: { peers: [%q] } }
routes: [{ path: /, service: app }]
`, certificate.Cert, certificate.Key, startWebSocketApp(t)), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sluicetest.Start(t.Context(), sluicetest.Options{
		Program: program, Admin: sluicetest.Any, Args: []string{"--config", file}, Log: filepath.Join(dir, "sluice.log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("stop sluice: %v\n%s", err, s.LogTail(20))
		}
	})

	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	p := &page{t: t, ctx: ctx}
	_, err = chromedp.Call(ctx, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true})
	p.check(err)
	p.do(chromedp.Navigate(strings.Replace(s.URL(), "http://", "https://", 1)))
	const talk = `new Promise(done => {
		const socket = new WebSocket('wss://' + location.host + '/ws'), got = [];
		socket.onmessage = message => {
			got.push(message.data.length > 100 ? message.data.length : message.data);
			if (got.length == 1) socket.send('short');
			else if (got.length == 2) socket.send('x'.repeat(1000000));
			else socket.close(1000, 'bye');
		};
		socket.onclose = end => done([...got, end.code, end.wasClean].join(' '));
	})`
	for range 2 {
		if got, want := evaluate[string](p, talk), "2.0 sluice short 1000000 1000 true"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
