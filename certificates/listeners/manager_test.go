package listeners

import (
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"sluice/certificates"
	"sluice/certificates/acme"
	"sluice/certificates/acme/dns01"
	"sluice/config"
	"sluice/config/units"
	"sluice/consul"
	"sluice/test/consultest"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// HTTP-01 is used if there is a listener for it. Listeners with the same settings share a manager,
// which ends with the last of them.
func TestManagersFollowTheListeners(t *testing.T) {
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://127.0.0.1:1"}})).Must(t)
	defer client.Close()
	m := New(Options{Consul: client, Wait: func() time.Duration { return time.Second }})
	defer m.Close()
	plain := config.Listener{Name: "web"}
	secure := config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
		Names: []string{"a.example"}, Directory: units.NewLocation("https://127.0.0.1:1/dir"), Storage: t.TempDir(),
	}}}
	use := func(list ...config.Listener) (c *config.Config, last *TLS) {
		c = &config.Config{Listeners: list}
		var all []*TLS
		for _, l := range list {
			last = verify.Result(m.TLS(l, c, nil)).Must(t)
			all = append(all, last)
		}
		m.Use(all)
		m.Retain()
		return c, last
	}
	without, alone := use(secure)
	with, both := use(plain, secure)
	verify.That(t, alone.Suits(without) && !alone.Suits(with) && both.Suits(with) && !both.Suits(without), "HTTP-01 is used without a listener for it, or not with one")
	_, again := use(plain, secure, secure)
	verify.That(t, again.acme.Manager == both.acme.Manager && len(m.authorities.managers) == 1, "%d managers, want the one of before", len(m.authorities.managers))
	if use(plain); len(m.authorities.managers) != 0 {
		t.Errorf("%d managers without a listener", len(m.authorities.managers))
	}
}

// Other settings of DNS-01 are another manager, and listeners for HTTP-01 do not matter to it. A
// wildcard is for clients, and not for challenges, which anyone can ask for with any number of
// names.
func TestManagersWithDNS(t *testing.T) {
	m := New(Options{})
	defer m.Close()
	secure := func(dns dns01.Options) config.Listener {
		return config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
			Names: []string{"*.A.example"}, Directory: units.NewLocation("https://127.0.0.1:1/dir"), Storage: filepath.Join(os.DevNull, "storage"), DNS: &dns,
		}}}
	}
	use := func(dns dns01.Options, others ...config.Listener) *TLS {
		l := secure(dns)
		c := &config.Config{Listeners: append(others, l)}
		tls := verify.Result(m.TLS(l, c, nil)).Must(t)
		verify.That(t, tls.Suits(&config.Config{Listeners: []config.Listener{l}}), "a listener for HTTP matters")
		return tls
	}
	one, two := dns01.Options{Provider: dns01.Provider{Name: "exec", Command: []string{"a b"}}}, dns01.Options{Provider: dns01.Provider{Name: "exec", Command: []string{"a", "b"}}}
	first, again, other := use(one), use(one, config.Listener{Name: "web"}), use(two)
	verify.That(t, first.acme.Manager == again.acme.Manager && first.acme.Manager != other.acme.Manager, "managers: %p %p %p", first.acme.Manager, again.acme.Manager, other.acme.Manager)
	m.Use([]*TLS{first, other})
	m.Retain()
	verify.Equal(t, len(m.authorities.managers), 2, "managers")
	for name, want := range map[string]bool{"www.a.example": true, "a.example": false, "a.www.a.example": false} {
		verify.Equal(t, first.acme.covers(name), want, "a certificate for %s", name)
		verify.That(t, !first.acme.manages(name), "a challenge for %s", name)
	}
}

// A call that has begun before a reload does not end what the reload has begun.
func TestObtainIsForTheLatestListeners(t *testing.T) {
	m := New(Options{})
	defer m.Close()
	secure := func(names ...string) *TLS {
		l := config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
			Names: names, Directory: units.NewLocation("https://127.0.0.1:1/dir"), Storage: filepath.Join(os.DevNull, "storage"),
		}}}
		return verify.Result(m.TLS(l, &config.Config{Listeners: []config.Listener{l}}, nil)).Must(t)
	}
	before, after := secure("a.example"), secure("a.example", "b.example")
	cert, key := testcert.PEM("b.example")
	pairs := map[string]acme.Pair{"b.example": {Cert: string(cert), Key: string(key)}}
	many := slices.Repeat([]*TLS{before}, 2000) // so that a call for them takes its time
	for round := range 30 {
		m.Use(many)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.Obtain()
		}()
		runtime.Gosched()
		m.Use([]*TLS{after})
		m.Obtain()
		<-ended
		after.acme.Restore(pairs)
		verify.Require(t, len(after.acme.Pairs()) == 1, "round %d: the new name is not managed", round)
	}
}

// Two listeners that get the certificate of a name from different authorities have their own ones
// in a new process too. One with another authority has that of the old process until it has its
// own.
func TestAuthoritiesWithTheSameNameInANewProcess(t *testing.T) {
	manager := func() (m *Manager, use func(directory string) *TLS) {
		m = New(Options{Others: func() []certificates.Use { return nil }})
		t.Cleanup(m.Close)
		return m, func(directory string) *TLS {
			l := config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
				Names: []string{"a.example"}, Directory: units.NewLocation(directory), Storage: filepath.Join(os.DevNull, "storage"),
			}}}
			return verify.Result(m.TLS(l, &config.Config{Listeners: []config.Listener{l}}, nil)).Must(t)
		}
	}
	old, use := manager()
	directories := []string{"https://127.0.0.1:1/one", "https://127.0.0.1:1/two"}
	var all []*TLS
	for n, directory := range directories {
		all = append(all, use(directory))
		cert, key := testcert.PEM("a.example", testcert.Lasting(-time.Hour, time.Duration(n+1)*time.Hour), func(c *x509.Certificate) { c.SerialNumber.SetInt64(int64(n)) })
		all[n].acme.Restore(map[string]acme.Pair{"a.example": {Cert: string(cert), Key: string(key)}})
	}
	old.Use(all)
	old.Obtain()
	serial := func(l *TLS) int64 { return l.acme.Certificates([]string{"a.example"})[0].Leaf.SerialNumber.Int64() }
	pairs := old.authorities.save()
	for _, late := range []bool{false, true} {
		next, use := manager()
		if late {
			next.authorities.restore(pairs)
		}
		one, two, three := use(directories[0]), use(directories[1]), use("https://127.0.0.1:1/three")
		if !late {
			next.authorities.restore(pairs)
		}
		verify.That(t, serial(one) == 0 && serial(two) == 1, "the certificates are %d and %d", serial(one), serial(two))
		verify.Equal(t, len(three.acme.Certificates([]string{"a.example"})), 1, "certificates of the third")
	}
}

// Nor does a reload that gives one of them another storage, which may be empty or away, give its
// clients the certificate of the other one.
func TestAuthoritiesWithTheSameNameAfterAReload(t *testing.T) {
	m := New(Options{Others: func() []certificates.Use { return nil }})
	defer m.Close()
	use := func(directory, storage string) *TLS {
		l := config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
			Names: []string{"a.example"}, Directory: units.NewLocation(directory), Storage: filepath.Join(os.DevNull, storage),
		}}}
		return verify.Result(m.TLS(l, &config.Config{Listeners: []config.Listener{l}}, nil)).Must(t)
	}
	serial := func(l *TLS) int64 { return l.acme.Certificates([]string{"a.example"})[0].Leaf.SerialNumber.Int64() }
	directories := []string{"https://127.0.0.1:1/long", "https://127.0.0.1:1/short 1"}
	var all []*TLS
	for n, directory := range directories {
		all = append(all, use(directory, "before"))
		cert, key := testcert.PEM("a.example", testcert.Lasting(-time.Hour, time.Duration(9-n)*time.Hour), func(c *x509.Certificate) { c.SerialNumber.SetInt64(int64(n + 1)) })
		all[n].acme.Restore(map[string]acme.Pair{"a.example": {Cert: string(cert), Key: string(key)}})
	}
	m.Use(all)
	m.Obtain()
	for n, directory := range directories {
		verify.Equal(t, serial(use(directory, "after")), int64(n+1), "certificate of %s", directory)
	}
	verify.That(t, serial(use("https://127.0.0.1:1/third", "after")) > 0, "another authority has none")
	next := New(Options{Others: func() []certificates.Use { return nil }})
	defer next.Close()
	next.authorities.restore(m.authorities.save())
	m = next
	verify.Equal(t, serial(use(directories[1], "before")), 2, "a directory with a space, in a new process")
}

// An expired certificate by ACME, whose renewal fails, does not stand before a valid one for its
// name.
func TestExpiredCertificateByACME(t *testing.T) {
	m := New(Options{Others: func() []certificates.Use { return nil }})
	defer m.Close()
	serial := func(n int64) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
	}
	files := testcert.Write(t, t.TempDir(), "a.example", serial(2))
	l := config.Listener{Name: "websecure", TLS: &config.ListenerTLS{
		Certificates: []config.Certificate{{Cert: files.Cert, Key: files.Key}},
		ACME:         &config.ACME{Names: []string{"a.example", "b.example"}, Directory: units.NewLocation("https://127.0.0.1:1/dir"), Storage: filepath.Join(os.DevNull, "storage")},
	}}
	listener := verify.Result(m.TLS(l, &config.Config{Listeners: []config.Listener{l}}, nil)).Must(t)
	for _, name := range l.TLS.ACME.Names {
		cert, key := testcert.PEM(name, testcert.Lasting(-time.Hour, 3*time.Second), serial(1))
		listener.acme.Restore(map[string]acme.Pair{name: {Cert: string(cert), Key: string(key)}})
	}
	served := func(name string) int64 {
		near, far := net.Pipe()
		defer near.Close()
		go tls.Server(far, listener.Config).Handshake()
		client := tls.Client(near, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		verify.NoError(t, client.Handshake())
		return client.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	consultest.Await(t, "the certificate of the file is served", func() bool { return served("a.example") == 2 })
	verify.That(t, len(listener.acme.Certificates([]string{"b.example"})) == 0 || served("b.example") == 1, "a certificate for another name is served")
}

// Of the certificates for a name, the first that is valid now is served, as time passes too;
// without one, the first. The default is the first of the list, whether it is valid or not.
func TestCertificateOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{Others: func() []certificates.Use { return nil }})
		defer m.Close()
		l := config.Listener{Name: "websecure", TLS: new(config.ListenerTLS)}
		for serial, c := range []struct {
			host       string
			begin, end time.Duration
		}{
			{"a.example", -2 * time.Hour, -time.Hour},
			{"a.example", 2 * time.Hour, 10 * time.Hour},
			{"a.example", -time.Hour, 3 * time.Hour},
			{"a.example", -time.Hour, 20 * time.Hour},
			{"b.example", -2 * time.Hour, -time.Hour},
			{"b.example", -2 * time.Hour, -time.Hour},
		} {
			files := testcert.Write(t, t.TempDir(), c.host, testcert.Lasting(c.begin, c.end), func(x *x509.Certificate) { x.SerialNumber = big.NewInt(int64(serial)) })
			l.TLS.Certificates = append(l.TLS.Certificates, config.Certificate{Cert: files.Cert, Key: files.Key})
		}
		listener := verify.Result(m.TLS(l, &config.Config{Listeners: []config.Listener{l}}, nil)).Must(t)
		check := func(host string, want int64) {
			t.Helper()
			near, far := net.Pipe()
			defer near.Close()
			go tls.Server(far, listener.Config).Handshake()
			client := tls.Client(near, &tls.Config{ServerName: host, InsecureSkipVerify: true})
			verify.NoError(t, client.Handshake())
			verify.Equal(t, client.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), want, "certificate for %q", host)
		}
		check("a.example", 2)
		check("b.example", 4)
		check("c.example", 0)
		check("", 0)
		time.Sleep(2*time.Hour + time.Minute)
		check("a.example", 1)
		time.Sleep(8 * time.Hour)
		check("a.example", 3)
		time.Sleep(10 * time.Hour)
		check("a.example", 0)
	})
}
