package locality

import (
	"testing"

	"sluice/test/verify"
)

func TestAmbiguousHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"0.0.0.0": true, "::": true, "::ffff:0.0.0.0": true,
		"169.254.169.254": true, "fe80::1": true, "fe80::1%eth0": true, "::ffff:169.254.1.1": true,
		"localhost": true, "LOCALHOST": true, "localhost.": true, "app.localhost": true,

		"10.0.0.1": false, "172.17.0.2": false, "192.168.0.1": false, "fd00::1": false, "2001:db8::1": false,
		"128.0.0.1": false, "1.0.0.127": false, "": false, "app": false, "localhost.example.com": false, "mylocalhost": false,
	} {
		verify.Equal(t, Ambiguous(host), want, "%q", host)
	}
}
