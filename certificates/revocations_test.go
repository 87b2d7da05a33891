package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/test/testcert"
	"sluice/test/verify"
)

func serial(n int64) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.SerialNumber = big.NewInt(n) }
}

// chains are those of a client's certificate with a serial number.
func chains(t *testing.T, of *testcert.Authority, n int64) [][]*x509.Certificate {
	t.Helper()
	_, _, pair := of.Chain(t, "/web", serial(n))
	return [][]*x509.Certificate{{pair.Leaf, verify.Result(x509.ParseCertificate(pair.Certificate[1])).Must(t)}}
}

// A list counts for the certificates of who has signed it, between its times. A certificate without
// a list of its authority is refused, as in nginx and HAProxy.
func TestRevocations(t *testing.T) {
	a, b := testcert.NewAuthority(t, "a.example"), testcert.NewAuthority(t, "b.example")
	now := time.Now()
	path := func(text []byte) string {
		name := filepath.Join(t.TempDir(), "file")
		verify.NoError(t, os.WriteFile(name, text, 0o600))
		return name
	}
	both := path(slices.Concat(a.Root, b.Root))
	read := func(crl []byte) (*Contents, error) { return Read(Files{CA: both, CRL: path(crl)}) }
	five, six, other := chains(t, a, 5), chains(t, a, 6), chains(t, b, 5)
	good := a.CRL(t, now.Add(-time.Hour), now.Add(time.Hour), []int64{5, 7})
	lists := verify.Result(read(good)).Must(t).Revocations
	for _, test := range []struct {
		what    string
		chains  [][]*x509.Certificate
		at      time.Time
		want    string // of Verify; "": valid
		revokes bool
	}{
		{"revoked", five, now, "the certificate is revoked: ", true},
		{"good", six, now, "", false},
		{"another authority", other, now, "there is no list of the certificates that CN=root of b.example has revoked", false},
		{"none", nil, now, "", false},
		{"expired", six, now.Add(2 * time.Hour), "has expired at", false},
		{"revoked by an expired list", five, now.Add(2 * time.Hour), "has expired at", true},
		{"not valid yet", six, now.Add(-2 * time.Hour), "is not valid before", false},
		{"one of two chains", [][]*x509.Certificate{five[0], six[0]}, now, "", false},
		{"trusted itself", [][]*x509.Certificate{{six[0][1]}}, now, "", false},
	} {
		err := lists.Verify(test.chains, test.at)
		verify.That(t, (err == nil) == (test.want == "") && (err == nil || strings.Contains(err.Error(), test.want)), "%s: got %v, want %q", test.what, err, test.want)
		verify.Equal(t, lists.Revokes(test.chains), test.revokes, "%s: revokes", test.what)
	}
	verify.That(t, !(*Revocations)(nil).Revokes(five), "no lists revoke")

	newer := a.CRL(t, now.Add(-time.Minute), now.Add(time.Hour), nil)
	for _, order := range [][]byte{slices.Concat(good, newer), slices.Concat(newer, good)} {
		verify.NoError(t, verify.Result(read(order)).Must(t).Revocations.Verify(five, now))
	}
	critical := func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
	}
	stranger := testcert.NewAuthority(t, "a.example") // the same name, another key
	for want, crl := range map[string][]byte{
		"is signed by none of the trusted certificates": stranger.CRL(t, now, now.Add(time.Hour), nil),
		"has the critical extension 2.5.29.28":          a.CRL(t, now, now.Add(time.Hour), nil, critical),
		"has no list of revoked certificates":           a.Root,
		"not a list of revoked certificates":            []byte("text"),
		"ends within a list":                            good[:len(good)-20],
	} {
		_, err := read(crl)
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "got %v, want %q", err, want)
	}

	// A trusted certificate that another one has revoked is not trusted, and who was verified with
	// it is revoked.
	below, _, _ := a.Chain(t, "/intermediate", serial(7))
	verify.NoError(t, os.WriteFile(both, below, 0o600)) // with its root
	contents := verify.Result(read(good)).Must(t)
	anchor := contents.trusted[0]
	verify.That(t, contents.Revocations.distrusts(anchor) && contents.Revocations.Revokes([][]*x509.Certificate{{six[0][0], anchor}}), "a revoked certificate is trusted")
	_, err := anchor.Verify(x509.VerifyOptions{Roots: contents.Trusted, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	verify.That(t, err == nil && !contents.Trusted.Equal(pool(contents.trusted)), "the pool has the revoked certificate")

	s := verify.Result(read(good)).Must(t).Revocations.status("crl.pem")
	verify.That(t, s.Kind == KindRevocations && s.Names[0] == "CN=root of a.example" && s.State(now) == Valid && s.State(now.Add(50*time.Minute)) == Expiring && s.State(now.Add(2*time.Hour)) == Expired, "status %+v", s)
}

// Who publishes lists may have a clock that is ahead, or publish the next list early: the present
// one counts until the next one begins, whether both are in the file or the next one replaces it.
// What the next one revokes is revoked at once.
func TestListThatHasNotBegun(t *testing.T) {
	a, now := testcert.NewAuthority(t, "a.example"), time.Now()
	present, next := a.CRL(t, now.Add(-time.Hour), now.Add(time.Hour), []int64{5}), a.CRL(t, now.Add(30*time.Minute), now.Add(2*time.Hour), []int64{6})
	files := Files{CA: filepath.Join(t.TempDir(), "ca.pem"), CRL: filepath.Join(t.TempDir(), "crl.pem")}
	verify.NoError(t, os.WriteFile(files.CA, a.Root, 0o600))
	write := func(crl []byte) { verify.NoError(t, os.WriteFile(files.CRL, crl, 0o600)) }
	write(present)
	replaced := verify.Result(Follow(files, nil)).Must(t)
	write(next)
	replaced.Read()
	alone := verify.Result(Read(files)).Must(t)
	write(append(next, present...))
	both := verify.Result(Read(files)).Must(t)
	for what, c := range map[string]*Contents{"replaced": replaced.Contents(), "both": both} {
		verify.Equal(t, c.Revocations.status("crl.pem").State(now), Valid, "%s: state", what)
		for n, want := range map[int64][2]bool{5: {true, false}, 6: {true, true}, 7: {false, false}} {
			verify.Equal(t, c.Revocations.Revokes(chains(t, a, n)), want[0], "%s: %d is revoked for open connections", what, n)
			for i, at := range []time.Time{now, now.Add(90 * time.Minute)} {
				err := c.Revocations.Verify(chains(t, a, n), at)
				verify.That(t, errors.Is(err, errRevoked) == want[i] && (err == nil) == !want[i], "%s: %d at %v: %v", what, n, at, err)
			}
		}
	}
	err := alone.Revocations.Verify(chains(t, a, 7), now)
	verify.That(t, err != nil && strings.Contains(err.Error(), "is not valid before"), "the next list alone: %v", err)
}

// The first key of a file seals tickets, and all open them; then come sluice's own keys.
func TestTicketKeysOfAFile(t *testing.T) {
	const one, two = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
	keys := verify.Result(parseTicketKeys("# today\n" + two + "\n\n  " + one + " \n")).Must(t)
	verify.That(t, len(keys) == 2 && keys[0][0] == 2 && keys[1][31] == 1, "got %v", keys)
	for text, want := range map[string]string{
		"":                    "want at least one key of 32 bytes in base64",
		one + "\nshort\n":     "line 2: want a key of 32 bytes",
		one + "\n" + one:      "line 2: a key that an earlier line has",
		one + "\n" + one[:40]: "line 2: want a key",
	} {
		_, err := parseTicketKeys(text)
		verify.That(t, err != nil && strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), one), "%q: got %v, want %q", text, err, want)
	}
}

// The profiles are Mozilla's: a listener with HTTP/2 may have each of them.
func TestProfiles(t *testing.T) {
	for name, p := range Profiles {
		verify.Equal(t, p.SuitsHTTP2(), "", "%s and HTTP/2", name)
	}
	only := Policy{MinVersion: MinVersion, Suites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}
	verify.Equal(t, only.SuitsHTTP2(), "HTTP/2 with TLS 1.2 needs a cipher suite with AES_128_GCM_SHA256", "no AES-128")
	cert, key := testcert.PEM("a.example") // ECDSA
	pair := verify.Result(tls.X509KeyPair(cert, key)).Must(t)
	verify.That(t, !only.SuitsKey(&pair) && DefaultPolicy.SuitsKey(&pair) && Profiles["modern"].SuitsKey(&pair), "a key suits the wrong suites")
}

func pool(all []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range all {
		p.AddCert(c)
	}
	return p
}

// A key that a wrong clock has made, far ahead, is not used until then.
func TestTicketKeysOfAWrongClock(t *testing.T) {
	now := time.Now()
	for age, want := range map[time.Duration]int{0: 1, TicketKeyEvery - time.Second: 1, TicketKeyEvery: 2, -time.Hour: 1, -365 * 24 * time.Hour: 2} {
		var keys TicketKeys
		keys.Restore([]TicketKey{{Made: now.Add(-age)}})
		keys.Rotate(now)
		verify.Equal(t, len(keys.All()), want, "keys after the age %v", age)
	}
}
