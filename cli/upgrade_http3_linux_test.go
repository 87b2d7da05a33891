package cli

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"sluice/test/long"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// New processes take over under load with HTTP/3, on kept and on new connections. No request is lost.
// Nobody repeats a request whose body can be read once.
func TestReplaceUnderLoadOfHTTP3(t *testing.T) {
	t.Parallel()
	upgrades := long.Count(t, 2, 20)
	secure := freeAddress(t)
	files := testcert.Write(t, t.TempDir(), "sluice.test")
	s := startListening(t, fmt.Sprintf(", { name: websecure, address: %q, http3: true, tls: { certificates: [{ cert: %q, key: %q }] } }", secure, files.Cert, files.Key),
		fmt.Sprintf("services: { star: { peers: [%q] } }\nroutes: [{ service: star }]\n", serveHandler(t, repeats)))
	trust := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "sluice.test"}
	pem := verify.Result(os.ReadFile(files.Cert)).Must(t)
	verify.Require(t, trust.RootCAs.AppendCertsFromPEM(pem), "the certificate cannot be read")
	newTransport := func() *http3.Transport {
		transport := &http3.Transport{TLSClientConfig: trust}
		t.Cleanup(func() { transport.Close() })
		return transport
	}
	shared := newTransport()
	kept := startLoadOn(t, 4, func(int) (http.RoundTripper, bool) { return shared, false }, func(int) (*http.Request, string) {
		r, _ := http.NewRequest(http.MethodPost, "https://"+secure, bufio.NewReader(strings.NewReader("body")))
		return r, "bodyok"
	})
	fresh := startLoadOn(t, 2, func(int) (http.RoundTripper, bool) { return onceEach{newTransport}, false }, func(int) (*http.Request, string) {
		r, _ := http.NewRequest(http.MethodGet, "https://"+secure, nil)
		return r, "ok"
	})
	for range upgrades {
		kept.more(20)
		fresh.more(10)
		s.replace()
	}
	kept.more(20)
	fresh.more(10)
	kept.stop()
	fresh.stop()
	t.Logf("%d upgrades, %d requests on kept connections, %d on new ones", upgrades, kept.served.Load(), fresh.served.Load())
	s.end()
}

// onceEach makes each request on a connection of its own.
type onceEach struct{ transport func() *http3.Transport }

func (o onceEach) RoundTrip(r *http.Request) (*http.Response, error) {
	transport := o.transport()
	answer, err := transport.RoundTrip(r)
	if err != nil {
		transport.Close()
		return nil, err
	}
	answer.Body = closing{answer.Body, transport}
	return answer, nil
}

// closing closes what a body came from.
type closing struct {
	io.ReadCloser
	from io.Closer
}

func (c closing) Close() error {
	err := c.ReadCloser.Close()
	c.from.Close()
	return err
}
