package client

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"sluice/certificates"
	"sluice/test/consultest"
	"sluice/test/etcdtest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// The user's permission is revoked and granted again; its password changes in etcd, and then
// in the file.
func TestFollowWithAUser(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "a", "1")
	ctx := t.Context()
	do := func(_ any, err error) {
		t.Helper()
		verify.NoError(t, err)
	}
	grant := func(c *clientv3.Client) {
		t.Helper()
		do(c.RoleGrantPermission(ctx, "reader", keysOf(t), clientv3.GetPrefixRangeEnd(keysOf(t)), clientv3.PermissionType(clientv3.PermRead)))
	}
	do(client.UserAdd(ctx, "root", "root"))
	do(client.UserGrantRole(ctx, "root", "root"))
	do(client.RoleAdd(ctx, "reader"))
	grant(client)
	do(client.UserAdd(ctx, "sluice", "first"))
	do(client.UserGrantRole(ctx, "sluice", "reader"))
	do(client.AuthEnable(ctx))
	root := c.Client(t, func(c *clientv3.Config) { c.Username, c.Password = "root", "root" })

	password := filepath.Join(t.TempDir(), "password")
	write(t, password, "wrong\n")
	f := follow(t, Options{Endpoints: c.Endpoints()[0], User: "sluice", PasswordFile: password})
	f.awaitFailing("authentication failed")
	write(t, password, "first\n")
	f.await("a=1")

	do(root.RoleRevokePermission(ctx, "reader", keysOf(t), clientv3.GetPrefixRangeEnd(keysOf(t))))
	f.awaitFailing(`the user "sluice" needs the read permission for prefix "` + keysOf(t))
	put(t, root, "a", "2")
	grant(root)
	f.await("a=2")

	do(root.UserChangePassword(ctx, "sluice", "second"))
	f.awaitFailing("authentication failed")
	write(t, password, "second")
	put(t, root, "a", "3")
	f.await("a=3")
	for _, v := range f.views {
		verify.That(t, v == "a=1" || v == "a=2" || v == "a=3", "view %q", v)
	}

	nobody := follow(t, Options{Endpoints: c.Endpoints()[0]})
	nobody.awaitFailing("the cluster wants a user")
}

// The cluster asks for client certificates. The files are read again: the first ones cannot be
// used.
func TestFollowWithTLS(t *testing.T) {
	t.Parallel()
	dir, other := t.TempDir(), t.TempDir()
	loopback := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }
	server := testcert.Write(t, dir, "server", loopback)
	trusted := testcert.Write(t, dir, "client")
	c := etcdtest.Start(t, etcdtest.Options{HTTPS: true, Args: []string{
		"--cert-file", server.Cert, "--key-file", server.Key, "--client-cert-auth", "--trusted-ca-file", trusted.Cert,
	}})
	own := testcert.Write(t, other, "client")
	f := follow(t, Options{Endpoints: c.Endpoints()[0], TLS: certificates.ClientTLS{CA: server.Cert, Cert: own.Cert, Key: own.Key}})
	// These fail at the same time as f.
	stranger := follow(t, Options{Endpoints: c.Endpoints()[0], TLS: certificates.ClientTLS{Cert: trusted.Cert, Key: trusted.Key}})
	named := follow(t, Options{Endpoints: c.Endpoints()[0], TLS: certificates.ClientTLS{CA: server.Cert, Cert: trusted.Cert, Key: trusted.Key, ServerName: "other"}})
	f.awaitFailing("certificate")
	for _, copy := range [][2]string{{trusted.Cert, own.Cert}, {trusted.Key, own.Key}} {
		write(t, copy[1], string(verify.Result(os.ReadFile(copy[0])).Must(t)))
	}
	f.await("")

	stranger.awaitFailing("unknown authority")
	named.awaitFailing("not other")
	careless := follow(t, Options{Endpoints: c.Endpoints()[0], TLS: certificates.ClientTLS{Cert: trusted.Cert, Key: trusted.Key, SkipVerify: true}})
	careless.await("")
	verify.That(t, !stranger.seen("") && !named.seen(""), "a certificate was accepted that must not be")
}

// A server forgets its logins when it restarts.
func TestFollowWithAUserThroughRestarts(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Options{})
	client := c.Client(t)
	put(t, client, "a", "0")
	ctx := t.Context()
	for _, name := range []string{"root", "sluice"} {
		verify.Result(client.UserAdd(ctx, name, name)).Must(t)
		verify.Result(client.UserGrantRole(ctx, name, "root")).Must(t)
	}
	verify.Result(client.AuthEnable(ctx)).Must(t)
	password := filepath.Join(t.TempDir(), "password")
	write(t, password, "sluice")
	f := follow(t, Options{Endpoints: c.Endpoints()[0], User: "sluice", PasswordFile: password}, func(c *Cluster) { c.heartbeatTimeout = 300 * time.Millisecond })
	f.await("a=0")
	for _, value := range []string{"1", "2"} {
		verify.NoError(t, c.Members[0].Kill())
		f.awaitFailing("")
		verify.NoError(t, c.Members[0].Launch())
		consultest.Await(t, "etcd answers", func() bool {
			root, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Username: "root", Password: "root", DialTimeout: time.Second, Logger: zap.NewNop()})
			if err != nil {
				return false
			}
			defer root.Close()
			_, err = root.Put(ctx, keysOf(t)+"a", value)
			return err == nil
		})
		f.await("a=" + value)
	}
}
