package clients

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// use makes requests from the page, and returns the protocol of everything that the browser has
// loaded for it.
const use = `(async () => {
	if (!globalThis.loaded) throw new Error("the script has not run")
	const long = "0123456789".repeat(30000)
	const asked = Array.from({length: 20}, async (_, n) => {
		const response = await fetch("/echo?" + n, {method: "POST", body: long + n})
		if (await response.text() !== long + n) throw new Error("another answer")
	})
	await Promise.all(asked)
	const shown = Array.from({length: 50}, (_, n) => new Promise((done, failed) => {
		const image = document.body.appendChild(new Image())
		image.onload = () => image.naturalWidth === 7 ? done() : failed(new Error("another image"))
		image.onerror = () => failed(new Error("no image"))
		image.src = "/image?" + n
	}))
	await Promise.all(shown)
	const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
	return entries.filter(e => !e.name.endsWith("/favicon.ico")).map(e => e.nextHopProtocol)
})()`

// visit is the protocol by which the browser has loaded the page.
const visit = `performance.getEntriesByType("navigation")[0].nextHopProtocol`

func testChromium(t *testing.T, s *stage) {
	host, _, err := net.SplitHostPort(s.address)
	verify.NoError(t, err)
	for _, visitor := range []struct {
		name, protocol string
		option         chromedp.ExecAllocatorOption
	}{
		{"h2", "h2", chromedp.Flag("disable-quic", true)},
		{"h3", "h3", chromedp.Flag("origin-to-force-quic-on", s.address)},
		// It learns of HTTP/3 by Alt-Svc only. The flag names another origin: with one of the
		// host, QUIC takes a certificate of the host that no authority of the system signed.
		{"Alt-Svc", "h3", chromedp.Flag("origin-to-force-quic-on", net.JoinHostPort(host, "1"))},
	} {
		t.Run(visitor.name, func(t *testing.T) {
			ctx := openChromium(t, s, visitor.option)
			open := func() (protocol string) {
				t.Helper()
				verify.NoError(t, chromedp.Do(ctx, chromedp.Navigate(s.url("/"))))
				return verify.Result(chromedp.Run(ctx, chromedp.Evaluate[string](visit))).Must(t)
			}
			first := open()
			if visitor.name == "Alt-Svc" {
				verify.Equal(t, first, "h2", "the protocol of the first visit")
				consultest.Await(t, "a visit by HTTP/3", func() bool { return open() == "h3" })
			}
			protocols := verify.Result(chromedp.Run(ctx, chromedp.Evaluate[[]string](use, chromedp.EvalAwaitPromise))).Must(t)
			if len(protocols) != 72 || slices.ContainsFunc(protocols, func(p string) bool { return p != visitor.protocol }) {
				t.Errorf("got %q, want %s for the page, the script, 20 requests and 50 images", protocols, visitor.protocol)
			}
		})
	}
}

// openChromium runs a browser that has stored nothing, until the test ends.
func openChromium(t *testing.T, s *stage, option chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	profile := verify.Result(os.MkdirTemp("", "sluice-clients-")).Must(t)
	t.Cleanup(func() {
		consultest.Await(t, "no process of the browser writes", func() bool { return os.RemoveAll(profile) == nil })
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(profile),
		chromedp.NoSandbox, // which does not work as root
		chromedp.DisableGPU,
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors-spki-list", pin(t, s.cert)), // the CA is not the system's
		option,
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancelAllocator)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	t.Cleanup(cancelBrowser)
	verify.NoError(t, chromedp.Do(browser))
	t.Cleanup(func() {
		end, cancel := context.WithTimeout(browser, 10*time.Second)
		defer cancel()
		verify.Succeeds(t, chromedp.Cancel(end))
	})
	ctx, cancel := context.WithTimeout(browser, patience)
	t.Cleanup(cancel)
	return ctx
}

// pin returns what identifies the key of a certificate in a file.
func pin(t *testing.T, file string) string {
	t.Helper()
	data := verify.Result(os.ReadFile(file)).Must(t)
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no certificate in %s", file)
	}
	certificate := verify.Result(x509.ParseCertificate(block.Bytes)).Must(t)
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
