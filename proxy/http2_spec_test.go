package proxy

import (
	"crypto/tls"
	"encoding/xml"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/pinned"
	"sluice/test/verify"
)

// The cases of h2spec, without and with TLS. One fails without TLS: what does not begin with
// the preface of HTTP/2 is answered as HTTP/1.1.
func TestHTTP2Spec(t *testing.T) {
	program := pinned.Program{
		Name: "h2spec", Title: "h2spec", Module: "github.com/summerwind/h2spec",
		Package: "github.com/summerwind/h2spec/cmd/h2spec", Dir: "test/h2spec",
	}
	binary, err := program.Binary(t.Context(), os.Stderr)
	verify.NoError(t, err)
	for _, test := range []struct {
		name      string
		tls       *tls.Config
		arguments []string
		exception string
	}{
		{"h2c", nil, nil, "http2/3.5: Sends invalid connection preface"},
		{"TLS", &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2"}}, []string{"--tls", "--insecure"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startProxy(t, Options{}, startLongOrigin(t, 1000).address())
			_, port, _ := net.SplitHostPort(p.serveWith(ListenerOptions{Name: "spec", TLS: test.tls, HTTP2: true}))
			report := filepath.Join(t.TempDir(), "report.xml")
			command := exec.Command(binary, append([]string{"--strict", "--timeout", "120", "--host", "127.0.0.1", "--port", port, "--junit-report", report}, test.arguments...)...)
			out, err := command.CombinedOutput()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			passed, failures := readSpecReport(t, report)
			verify.That(t, passed >= 140, "%d cases passed:\n%s", passed, out)
			for name, text := range failures {
				verify.Equal(t, name, test.exception, "%s", text)
			}
		})
	}
}

// readSpecReport returns the number of cases that passed, and the failures by case.
func readSpecReport(t *testing.T, file string) (passed int, failures map[string]string) {
	t.Helper()
	var report struct {
		Suites []struct {
			Name    string `xml:"name,attr"`
			Package string `xml:"package,attr"`
			Cases   []struct {
				Package string  `xml:"package,attr"`
				Class   string  `xml:"classname,attr"`
				Failure *string `xml:"failure"`
				Error   *string `xml:"error"`
				Skipped *string `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = xml.Unmarshal(text, &report)
	}
	verify.NoError(t, err)
	failures = make(map[string]string)
	for _, suite := range report.Suites {
		for _, c := range suite.Cases {
			name := c.Package + ": " + c.Class
			switch {
			case c.Failure != nil:
				failures[name] = strings.TrimSpace(*c.Failure)
			case c.Error != nil:
				failures[name] = strings.TrimSpace(*c.Error)
			case c.Skipped == nil:
				passed++
			}
		}
	}
	return passed, failures
}
