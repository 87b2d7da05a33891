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

const anAuthority = "https://127.0.0.1:1/dir"

// unreadable is a storage from which nothing comes.
var unreadable = filepath.Join(os.DevNull, "storage")

func newManager(t *testing.T) *Manager {
	m := New(Options{Others: func() []certificates.Use { return nil }})
	t.Cleanup(m.Close)
	return m
}

// secure returns a listener with certificates by ACME.
func secure(directory, storage string, names ...string) config.Listener {
	return config.Listener{Name: "websecure", TLS: &config.ListenerTLS{ACME: &config.ACME{
		Names: names, Directory: units.NewLocation(directory), Storage: storage,
	}}}
}

// alone returns what m has for a listener beside which there is none.
func alone(t *testing.T, m *Manager, l config.Listener) *TLS {
	t.Helper()
	return verify.Result(m.TLS(l, &config.Config{Listeners: []config.Listener{l}}, nil)).Must(t)
}

func numbered(n int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
}

// restore gives l a certificate by ACME, which ends after a time.
func restore(l *TLS, name string, number int64, ends time.Duration) {
	cert, key := testcert.PEM(name, testcert.Lasting(-time.Hour, ends), numbered(number))
	l.acme.Restore(map[string]acme.Pair{name: {Cert: string(cert), Key: string(key)}})
}

// served returns the number of the certificate that a client gets for a name.
func served(t *testing.T, l *TLS, name string) int64 {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go tls.Server(far, l.Config).Handshake()
	client := tls.Client(near, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	verify.NoError(t, client.Handshake())
	return client.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// HTTP-01 is used if there is a listener for it. Listeners with the same settings share a manager,
// which ends with the last of them.
func TestManagersFollowTheListeners(t *testing.T) {
	client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://127.0.0.1:1"}})).Must(t)
	defer client.Close()
	m := New(Options{Consul: client, Wait: func() time.Duration { return time.Second }})
	defer m.Close()
	plain, secure := config.Listener{Name: "web"}, secure(anAuthority, t.TempDir(), "a.example")
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
	use(plain)
	verify.Equal(t, len(m.authorities.managers), 0, "managers without a listener")
}

// Other settings of DNS-01 are another manager, and listeners for HTTP-01 do not matter to it. A
// wildcard is for clients, and not for challenges, which anyone can ask for with any number of
// names.
func TestManagersWithDNS(t *testing.T) {
	m := newManager(t)
	use := func(dns dns01.Options, others ...config.Listener) *TLS {
		l := secure(anAuthority, unreadable, "*.A.example")
		l.TLS.ACME.DNS = &dns
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
	m := newManager(t)
	before, after := alone(t, m, secure(anAuthority, unreadable, "a.example")), alone(t, m, secure(anAuthority, unreadable, "a.example", "b.example"))
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
		restore(after, "b.example", 1, time.Hour)
		verify.Require(t, len(after.acme.Pairs()) == 1, "round %d: the new name is not managed", round)
	}
}

// Two listeners that get the certificate of a name from different authorities have their own ones
// in a new process too. One with another authority has that of the old process until it has its
// own.
func TestAuthoritiesWithTheSameNameInANewProcess(t *testing.T) {
	old := newManager(t)
	directories := []string{"https://127.0.0.1:1/one", "https://127.0.0.1:1/two"}
	var all []*TLS
	for n, directory := range directories {
		all = append(all, alone(t, old, secure(directory, unreadable, "a.example")))
		restore(all[n], "a.example", int64(n), time.Duration(n+1)*time.Hour)
	}
	old.Use(all)
	old.Obtain()
	pairs := old.authorities.save()
	for _, late := range []bool{false, true} {
		next := newManager(t)
		use := func(directory string) *TLS { return alone(t, next, secure(directory, unreadable, "a.example")) }
		if late {
			next.authorities.restore(pairs)
		}
		one, two, three := use(directories[0]), use(directories[1]), use("https://127.0.0.1:1/three")
		if !late {
			next.authorities.restore(pairs)
		}
		verify.That(t, serialOf(one) == 0 && serialOf(two) == 1, "the certificates are %d and %d", serialOf(one), serialOf(two))
		verify.Equal(t, len(three.acme.Certificates([]string{"a.example"})), 1, "certificates of the third")
	}
}

// serialOf returns the number of the certificate by ACME for a.example.
func serialOf(l *TLS) int64 {
	return l.acme.Certificates([]string{"a.example"})[0].Leaf.SerialNumber.Int64()
}

// Nor does a reload that gives one of them another storage, which may be empty or away, give its
// clients the certificate of the other one.
func TestAuthoritiesWithTheSameNameAfterAReload(t *testing.T) {
	m := newManager(t)
	use := func(directory, storage string) *TLS {
		return alone(t, m, secure(directory, filepath.Join(os.DevNull, storage), "a.example"))
	}
	directories := []string{"https://127.0.0.1:1/long", "https://127.0.0.1:1/short 1"}
	var all []*TLS
	for n, directory := range directories {
		all = append(all, use(directory, "before"))
		restore(all[n], "a.example", int64(n+1), time.Duration(9-n)*time.Hour)
	}
	m.Use(all)
	m.Obtain()
	for n, directory := range directories {
		verify.Equal(t, serialOf(use(directory, "after")), int64(n+1), "certificate of %s", directory)
	}
	verify.That(t, serialOf(use("https://127.0.0.1:1/third", "after")) > 0, "another authority has none")
	next := newManager(t)
	next.authorities.restore(m.authorities.save())
	m = next
	verify.Equal(t, serialOf(use(directories[1], "before")), 2, "a directory with a space, in a new process")
}

// An expired certificate by ACME, whose renewal fails, does not stand before a valid one for its
// name.
func TestExpiredCertificateByACME(t *testing.T) {
	files := testcert.Write(t, t.TempDir(), "a.example", numbered(2))
	l := secure(anAuthority, unreadable, "a.example", "b.example")
	l.TLS.Certificates = []config.Certificate{{Cert: files.Cert, Key: files.Key}}
	listener := alone(t, newManager(t), l)
	for _, name := range l.TLS.ACME.Names {
		restore(listener, name, 1, 3*time.Second)
	}
	consultest.Await(t, "the certificate of the file is served", func() bool { return served(t, listener, "a.example") == 2 })
	verify.That(t, len(listener.acme.Certificates([]string{"b.example"})) == 0 || served(t, listener, "b.example") == 1, "a certificate for another name is served")
}

// Of the certificates for a name, the first that is valid now is served, as time passes too;
// without one, the first. The default is the first of the list, whether it is valid or not.
func TestCertificateOfAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
			files := testcert.Write(t, t.TempDir(), c.host, testcert.Lasting(c.begin, c.end), numbered(int64(serial)))
			l.TLS.Certificates = append(l.TLS.Certificates, config.Certificate{Cert: files.Cert, Key: files.Key})
		}
		listener := alone(t, newManager(t), l)
		check := func(host string, want int64) {
			t.Helper()
			verify.Equal(t, served(t, listener, host), want, "certificate for %q", host)
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

// A listener uses changed files of its certificate, and the ones before while these cannot be used.
func TestChangedFilesOfAListener(t *testing.T) {
	m, dir := newManager(t), t.TempDir()
	files := testcert.Write(t, dir, "a.example", numbered(1))
	listener := alone(t, m, config.Listener{Name: "web", TLS: &config.ListenerTLS{
		Certificates: []config.Certificate{{Cert: files.Cert, Key: files.Key}},
	}})
	m.Use([]*TLS{listener})
	verify.NoError(t, os.Remove(files.Cert))
	m.Refresh()
	verify.Equal(t, served(t, listener, "a.example"), 1, "without the file")
	all := m.Statuses()
	verify.That(t, len(all) == 1 && all[0].Fault != nil, "the state %+v", all)
	testcert.Write(t, dir, "a.example", numbered(2))
	m.Refresh()
	verify.Equal(t, served(t, listener, "a.example"), 2, "with the changed files")
}
