package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/test/consultest"
	"sluice/test/pinned"
	"sluice/test/subprocess"
	"sluice/test/testcert"
)

// runPebble runs one of Pebble's programs until the test ends.
func runPebble(t *testing.T, name string, arguments ...string) *subprocess.Output {
	t.Helper()
	program := pinned.Program{
		Name: name, Title: "Pebble", Module: "github.com/letsencrypt/pebble/v2",
		Package: "github.com/letsencrypt/pebble/v2/cmd/" + name, Dir: "test/pebble",
	}
	binary, err := program.Binary(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	log := new(subprocess.Output)
	command := exec.Command(binary, arguments...)
	command.Stdout, command.Stderr = log, log
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, log)
		}
	})
	return log
}

// Certificates are obtained by either challenge, from a real ACME server, and are
// loaded from the storage after a restart.
func TestACME(t *testing.T) {
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) {
			dir := t.TempDir()
			port := func() int { return consultest.ReservePort(t) }
			dns, directory, management, plain, secure := port(), port(), port(), port(), port()
			own := testcert.Write(t, dir, "localhost", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
			settings := map[string]any{
				"listenAddress":           "127.0.0.1:" + strconv.Itoa(directory),
				"managementListenAddress": "127.0.0.1:" + strconv.Itoa(management),
				"certificate":             own.Cert, "privateKey": own.Key,
				"httpPort": plain, "tlsPort": secure,
			}
			listener := fmt.Sprintf("  - { name: web, address: \"127.0.0.1:%d\", redirect_https: {} }\n", plain)
			if challenge == "http-01" {
				settings["tlsPort"] = port() // TLS-ALPN-01 fails there
			} else {
				listener = ""
			}
			text, err := json.Marshal(map[string]any{"pebble": settings})
			if err != nil {
				t.Fatal(err)
			}
			config := filepath.Join(dir, "pebble.json")
			if err := os.WriteFile(config, text, 0o600); err != nil {
				t.Fatal(err)
			}
			resolver := "127.0.0.1:" + strconv.Itoa(dns)
			runPebble(t, "pebble-challtestsrv", "-dnsserver", resolver, "-doh", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
				"-defaultIPv6", "", "-management", "127.0.0.1:"+strconv.Itoa(port()))
			log := runPebble(t, "pebble", "-config", config, "-dnsserver", resolver)

			sluice := fmt.Sprintf(`
admin: { address: "127.0.0.1:0" }
listeners:
%s  - name: websecure
    address: "127.0.0.1:%d"
    tls: { acme: { names: [a.example], directory: "https://127.0.0.1:%d/dir", storage: %q, ca: %q } }
`, listener, secure, directory, filepath.Join(dir, "acme"), own.Cert) +
				static("star", serveOrigin(t, func(http.ResponseWriter, *http.Request) {}))
			eventuallyListens(t, directory)
			obtained := func(r *running) (serial string) {
				t.Helper()
				r.await("the certificate", func() bool {
					conn, err := tls.Dial("tcp", r.Address("websecure").String(), &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
					if err != nil {
						return false
					}
					defer conn.Close()
					serial = conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
					return true
				})
				return serial
			}
			r := start(t, sluice)
			first := obtained(r)
			var all []admin.Certificate
			if r.api("/api/certificates", &all); len(all) != 1 || all[0].State != "valid" {
				t.Errorf("/api/certificates: %+v", all)
			}
			orders := strings.Count(log.String(), "POST /order-plz")
			r.stop()
			r.awaitEnd()
			r = start(t, sluice)
			if second := obtained(r); second != first {
				t.Error("another certificate after a restart")
			}
			if n := strings.Count(log.String(), "POST /order-plz"); n != orders {
				t.Errorf("%d orders after a restart", n-orders)
			}
		})
	}
}

// HTTP-01 is used as long as there is a listener for it.
func TestACMEFollowsTheListeners(t *testing.T) {
	peer := serveOrigin(t, func(http.ResponseWriter, *http.Request) {})
	text := func(web string) string {
		return fmt.Sprintf(`
admin: { address: "127.0.0.1:0" }
listeners:
%s  - { name: websecure, address: "127.0.0.1:0", tls: { acme: { names: [a.example], directory: "https://127.0.0.1:1/dir", storage: %q } } }
`, web, filepath.Join(t.TempDir(), "acme")) + static("star", peer)
	}
	const web = "  - { name: web, address: \"127.0.0.1:0\" }\n"
	with := text(web)
	without := strings.Replace(with, web, "", 1)
	r := start(t, without)
	for i, want := range []bool{false, true, false} {
		if i > 0 {
			before := r.history.Current().Number
			r.write([]string{"", with, without}[i])
			r.Reload()
			r.await("it is applied", func() bool { return r.history.Current().Number > before })
		}
		all := r.allListeners()
		if got := all[len(all)-1].tls.http01; got != want {
			t.Errorf("after %d reloads, HTTP-01 is used: %v", i, got)
		}
	}
}

// eventuallyListens waits until a program listens on the port.
func eventuallyListens(t *testing.T, port int) {
	t.Helper()
	r := &running{t: t}
	r.await("the ACME server", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
