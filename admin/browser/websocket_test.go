package browser

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"
	"github.com/coder/websocket"

	"sluice/test/testcert"
	"sluice/test/verify"
)

// startWebSocketApp runs an app with a page and a WebSocket at /ws, which says by which
// protocol the request came, and sends back what it gets.
func startWebSocketApp(t *testing.T) (port int) {
	t.Helper()
	return startHandler(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
}

// A page that came over HTTP/2 opens its WebSockets on the same connection.
func TestWebSocketOverHTTP2(t *testing.T) {
	certificate := testcert.Write(t, t.TempDir(), "127.0.0.1")
	g := startSluice(t, options{listeners: true, services: fmt.Sprintf(`
listeners: [{ name: web, address: "127.0.0.1:0", tls: { certificates: [{ cert: %q, key: %q }] } }]
services: { app: { peers: ["127.0.0.1:%d"] } }
routes: [{ path: /, service: app }]
`, certificate.Cert, certificate.Key, startWebSocketApp(t))})

	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	p := &page{t: t, ctx: ctx}
	_, err := chromedp.Call(ctx, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true})
	p.check(err)
	p.do(chromedp.Navigate(strings.Replace(g.URL(), "http://", "https://", 1)))
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
		verify.Equal(t, evaluate[string](p, talk), "2.0 sluice short 1000000 1000 true", "the talk")
	}
}
