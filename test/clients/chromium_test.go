package clients

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// use makes requests from the page, and returns the protocol of everything that the browser has
// loaded.
const use = `(async () => {
	if (!globalThis.loaded) throw new Error("the script has not run")
	const long = "0123456789".repeat(30000)
	const asked = Array.from({length: 20}, async (_, n) => {
		const response = await fetch("/echo?" + n, {method: "POST", body: long + n})
		if (await response.text() !== long + n) throw new Error("another answer")
	})
	await Promise.all(asked)
	const entries = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
	return entries.filter(e => !e.name.endsWith("/favicon.ico")).map(e => e.nextHopProtocol)
})()`

func testChromium(t *testing.T, s *stage) {
	profile := verify.Result(os.MkdirTemp("", "sluice-clients-")).Must(t)
	t.Cleanup(func() {
		consultest.Await(t, "no process of the browser writes", func() bool { return os.RemoveAll(profile) == nil })
	})
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(profile),
		chromedp.NoSandbox, // which does not work as root
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.Flag("ignore-certificate-errors-spki-list", pin(t, s.cert)), // the CA is not the system's
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(t.Context(), options...)
	defer cancelAllocator()
	browser, cancelBrowser := chromedp.NewContext(allocator)
	defer cancelBrowser()
	verify.NoError(t, chromedp.Do(browser))
	ctx, cancel := context.WithTimeout(browser, patience)
	defer cancel()
	verify.NoError(t, chromedp.Do(ctx, chromedp.Navigate(s.url("/"))))
	protocols := verify.Result(chromedp.Run(ctx, chromedp.Evaluate[[]string](use, chromedp.EvalAwaitPromise))).Must(t)
	if len(protocols) != 22 || slices.ContainsFunc(protocols, func(p string) bool { return p != "h2" }) {
		t.Errorf("got %q, want h2 for the page, the script and 20 requests", protocols)
	}
	end, cancel := context.WithTimeout(browser, 10*time.Second)
	defer cancel()
	verify.Succeeds(t, chromedp.Cancel(end))
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
