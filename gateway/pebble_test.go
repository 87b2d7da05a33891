package gateway

import (
	"crypto/x509"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"sluice/test/consultest"
	"sluice/test/pinned"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// pebble is an ACME server, for which every name has the address 127.0.0.1.
type pebble struct {
	plain, secure int    // ports on which it expects the answers of challenges
	dns           string // address of the name server that it asks; "": one of its own

	// Set by start.

	directory int    // port of the API
	ca        string // file with the certificate of the API
	log       *subprocess.Output
}

// start runs the server until the test ends.
func (p *pebble) start(t *testing.T) {
	t.Helper()
	address := func() string { return "127.0.0.1:" + strconv.Itoa(consultest.ReservePort(t)) }
	dir := t.TempDir()
	p.directory = consultest.ReservePort(t)
	own := testcert.Write(t, dir, "localhost", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	p.ca = own.Cert
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress":           "127.0.0.1:" + strconv.Itoa(p.directory),
		"managementListenAddress": address(),
		"certificate":             own.Cert, "privateKey": own.Key,
		"httpPort": p.plain, "tlsPort": p.secure,
	}})
	verify.NoError(t, err)
	config := filepath.Join(dir, "pebble.json")
	verify.NoError(t, os.WriteFile(config, text, 0o600))
	if p.dns == "" {
		p.dns = address()
		runPebble(t, "pebble-challtestsrv", "-dnsserver", p.dns, "-doh", "", "-http01", "", "-https01", "", "-tlsalpn01", "",
			"-defaultIPv6", "", "-management", address())
	}
	p.log = runPebble(t, "pebble", "-config", config, "-dnsserver", p.dns)
	eventuallyListens(t, p.directory)
}

// runPebble runs one of Pebble's programs until the test ends.
func runPebble(t *testing.T, name string, arguments ...string) *subprocess.Output {
	t.Helper()
	program := pinned.Program{
		Name: name, Title: "Pebble", Module: "github.com/letsencrypt/pebble/v2",
		Package: "github.com/letsencrypt/pebble/v2/cmd/" + name, Dir: "test/pebble",
	}
	binary := verify.Result(program.Binary(t.Context(), os.Stderr)).Must(t)
	log := new(subprocess.Output)
	command := exec.Command(binary, arguments...)
	command.Stdout, command.Stderr = log, log
	command.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=20")
	verify.NoError(t, command.Start())
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, log)
		}
	})
	return log
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
