package certificates

import (
	"crypto/x509"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// combined returns a certificate and its key in one text.
func combined(host string, change ...func(*x509.Certificate)) string {
	cert, key := testcert.PEM(host, change...)
	return string(cert) + string(key)
}

// inUse returns the keys whose version in texts is in use.
func inUse(c *Collection, texts map[string]string) []string {
	good := c.InUse().Keys
	maps.DeleteFunc(good, func(name, text string) bool { return texts[name] != text })
	return slices.Sorted(maps.Keys(good))
}

// The keys are laid out as fabio, Traefik or ACME clients do.
func TestPairs(t *testing.T) {
	keys := map[string]string{
		"a.pem": "1", "b-cert.pem": "2", "b-key.pem": "3", "x/c.crt": "4", "x/c.key": "5", "0/certFile": "6", "0/keyFile": "7", "certFile": "8",
		"d-key.pem": "9", "notes": "10", "a.json": "11",
	}
	got := make(map[string]string)
	for name, p := range pairsOf(keys) {
		got[name] = p.text.cert + " " + p.text.key + p.missing
	}
	want := map[string]string{
		"a.pem": "1 1", "b-cert.pem": "2 3", "x/c.crt": "4 5", "0/certFile": "6 7", "certFile": "8 keyFile", "d-cert.pem": " 9d-cert.pem",
	}
	verify.That(t, maps.Equal(got, want), "got  %q\nwant %q", got, want)
}

// A version that is not valid yet waits for its time; an expired one is used only if there
// is nothing better.
func TestCollectionKeepsWhatIsValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hour = time.Hour
		var told []string
		c := NewCollection("kv:certs", func(err error) {
			if err == nil {
				told = append(told, "used")
			} else {
				told = append(told, "error")
			}
		})
		s := c.Statuses()
		verify.That(t, len(s) == 1 && s[0].State(time.Now()) == Missing && s[0].Fault != nil, "before the first answer: %+v", s)
		expired := map[string]string{"a.pem": combined("a", testcert.Lasting(-2*hour, -hour))}
		now := map[string]string{"a.pem": combined("a", testcert.Lasting(-hour, 24*hour))}
		later := map[string]string{"a.pem": combined("a", testcert.Lasting(hour, 48*hour))}
		expect := func(what string, want map[string]string, news ...string) {
			t.Helper()
			c.Refresh()
			verify.That(t, maps.Equal(c.InUse().Keys, want), "%s: another version is in use", what)
			verify.Slices(t, told, news, "%s: told", what)
			told = nil
		}
		c.Update(expired)
		expect("an expired one alone", expired, "used")
		c.Update(now)
		expect("a valid one", now, "used")
		c.Update(expired)
		expect("an expired one", now, "error")
		c.Update(later)
		expect("one of later", now, "error")
		time.Sleep(2 * hour)
		expect("at its time", later, "used")
		c.Update(map[string]string{"a.pem": "text"})
		expect("no certificate", later, "error")
		c.Update(later)
		expect("as before", later, "used")
	})
}

// A certificate whose keys are gone stays for ten minutes, until it is written again, it
// expires, or others are valid for all of its names; and so it does if another collection
// takes over at any time.
func TestCollectionWithoutKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		both := func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "b.example"} }
		one := map[string]string{"one.pem": combined("one", both)}
		half := map[string]string{"half.pem": combined("*.example", func(c *x509.Certificate) { c.DNSNames = []string{"a.example"} })}
		rest := map[string]string{"rest.pem": combined("*.example")}
		c := NewCollection("kv:certs", func(error) {})
		c.Update(one)
		c.Update(nil)
		verify.Equal(t, len(c.Certificates()), 1, "without keys: certificates")
		time.Sleep(discovery.Stay / 2)
		later := NewCollection("kv:certs", func(error) {})
		later.Suggest(c.InUse())
		verify.Equal(t, len(later.Certificates()), 1, "after a restart: certificates")
		later.Update(nil)
		later.Refresh()
		verify.That(t, len(later.Certificates()) == 1 && later.InUse().Equal(c.InUse()), "after the first answer: %+v", later.InUse())
		early := NewCollection("kv:certs", func(error) {})
		early.Update(nil) // before what it takes over from has told it
		early.Suggest(c.InUse())
		verify.That(t, len(early.Certificates()) == 1 && early.InUse().Equal(c.InUse()), "told late: %+v", early.InUse())
		// The clock was put back since its key was gone.
		ahead := NewCollection("kv:certs", func(error) {})
		ahead.Suggest(InUse{Keys: one, Gone: map[string]time.Time{"one.pem": time.Now().Add(30 * 24 * time.Hour)}})
		unanswered := NewCollection("kv:certs", func(error) {})
		unanswered.Suggest(ahead.InUse())
		ahead.Update(nil)
		for _, c := range []*Collection{c, later} {
			c.Update(one) // a slip that was undone
			c.Update(nil)
		}
		time.Sleep(discovery.Stay - time.Second)
		later = NewCollection("kv:certs", func(error) {})
		later.Suggest(c.InUse())
		c.Refresh()
		verify.That(t, len(c.Certificates()) == 1 && len(later.Certificates()) == 1, "the certificate is gone within ten minutes")
		time.Sleep(time.Second)
		c.Refresh()
		later.Refresh()
		ahead.Refresh()
		unanswered.Refresh()
		verify.That(t, len(ahead.Certificates()) == 0 && len(unanswered.Certificates()) == 0, "a certificate that is gone since a time to come stays longer")
		verify.That(t, len(c.Certificates()) == 0 && len(later.Certificates()) == 0, "the certificate is still there after ten minutes")
		c.Update(one)
		c.Update(nil)
		c.Update(half)
		verify.Equal(t, len(c.Certificates()), 2, "with one name: certificates")
		maps.Copy(half, rest)
		c.Update(half)
		verify.Equal(t, len(c.Certificates()), 2, "with both names: certificates")
		verify.Slices(t, inUse(c, half), []string{"half.pem", "rest.pem"}, "in use")
		c.Update(one)
		time.Sleep(25 * time.Hour)
		c.Update(nil)
		s := c.Statuses()
		verify.That(t, len(c.Certificates()) == 0 && len(s) == 1 && s[0].Fault != nil, "expired and gone: %+v", s)
	})
}

func TestCopy(t *testing.T) {
	dir := t.TempDir()
	c := CopyIn(dir, "consul_kv:certs/web")
	got, err := c.Load()
	verify.That(t, got.IsZero() && err == nil, "no file: %v, %v", got, err)
	state := InUse{Keys: map[string]string{"a.pem": "1\n", "b/c.pem": strings.Repeat("2", maxFileBytes)}, Gone: map[string]time.Time{"a.pem": time.Now().UTC()}}
	verify.NoError(t, c.Save(state))
	verify.NoError(t, c.Save(InUse{})) // keeps it
	got, err = c.Load()
	verify.That(t, err == nil && got.Equal(state), "got %d keys, %v", len(got.Keys), err)
	files := verify.Result(os.ReadDir(dir)).Must(t)
	verify.Equal(t, len(files), 1, "files %v", files)
	verify.NoError(t, os.WriteFile(filepath.Join(dir, files[0].Name()), []byte("{"), 0o600))
	_, err = c.Load()
	verify.That(t, err != nil, "a damaged file is no error")
	err = CopyIn(filepath.Join(dir, "none"), "a").Save(state)
	verify.That(t, err != nil, "no directory is no error")
}
