package config

import (
	"io/fs"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

func TestEndpoint(t *testing.T) {
	for address, want := range map[string][2]string{
		"127.0.0.1:8081":     {discovery.NetworkTCP, "127.0.0.1:8081"},
		":8081":              {discovery.NetworkTCP, ":8081"},
		"unix:/run/a.sock":   {discovery.NetworkUnix, "/run/a.sock"},
		"unix:///run/a.sock": {discovery.NetworkUnix, "/run/a.sock"},
	} {
		network, at := discovery.NetworkOf(address)
		verify.That(t, network == want[0] && at == want[1], "%s: got %s %s", address, network, at)
	}
	socket := endpoint("unix:/run/a").Value
	for other, want := range map[string]bool{"unix:/run/a": true, "unix://run/a": true, "unix:/run/b": false, ":80": false} {
		verify.Equal(t, socket.collides(endpoint(other).Value), want, "a socket and %s", other)
	}
	verify.That(t, !endpoint(":80").Value.collides(socket), "a port collides with a socket")
}

func TestPermissions(t *testing.T) {
	for _, c := range []struct {
		socket   Socket
		mode     fs.FileMode
		uid, gid int
	}{
		{Socket{}, 0o600, -1, -1},
		{Socket{Group: "7"}, 0o660, -1, 7},
		{Socket{Mode: FileMode{Text: "0666", Value: 0o666}, User: "root"}, 0o666, 0, -1},
		{Socket{Mode: FileMode{Text: "600", Value: 0o600}, User: "5", Group: "7"}, 0o600, 5, 7},
	} {
		mode, uid, gid, err := c.socket.Permissions()
		verify.That(t, mode == c.mode && uid == c.uid && gid == c.gid && err == nil, "%+v: got %o %d %d %v", c.socket, mode, uid, gid, err)
	}
}
