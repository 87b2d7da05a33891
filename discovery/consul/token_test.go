package consul

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// tokenFile is a token file.
type tokenFile struct {
	t    *testing.T
	path string
}

func newTokenFile(t *testing.T, token string) tokenFile {
	f := tokenFile{t, filepath.Join(t.TempDir(), "token")}
	f.write(token)
	return f
}

func (f tokenFile) write(token string) {
	f.t.Helper()
	verify.NoError(f.t, os.WriteFile(f.path, []byte(token), 0o600))
}

// denying answers 403 to all other tokens.
func denying(token string) discoverytest.Fault {
	return discoverytest.Fault{Status: 403, Body: "ACL not found", Only: func(r discoverytest.Request) bool { return r.Token != token }}
}

func TestTokenReplacedBeforeItsRevocationCausesNoError(t *testing.T) {
	file := newTokenFile(t, "old\n")
	watchInBubbleAs(t, consul.Options{TokenFile: file.path}, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
		b.expect(sec, "0s: a")
		file.write("new\n")
		b.at(1500 * ms)
		b.Break(denying("new")) // the query that waits has the old one
		b.set("a b")
		b.expect(1500*ms, "1.5s: a b")
		b.fresh()
		verify.Equal(t, b.status().Errors, 0, "errors")
	})
}

func TestWatchRecoversAfterTheReplacementOfARevokedToken(t *testing.T) {
	t.Parallel()
	for n := range 10 { // at different moments of a wait
		file := newTokenFile(t, "old")
		watchInBubbleAs(t, consul.Options{TokenFile: file.path}, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
			b.expect(sec, "0s: a")
			b.Break(denying("new"))
			b.set("a b")
			at := 5*time.Minute + time.Duration(n)*1100*ms
			b.expect(at)
			b.stale(`for "star"`)
			file.write("new")
			b.expectOne(at, at+2*sec, "a b")
		})
	}
}

func TestUnreadableTokenFileKeepsTheToken(t *testing.T) {
	for name, spoil := range map[string]func(tokenFile){
		"missing":    func(f tokenFile) { os.Remove(f.path) },
		"empty":      func(f tokenFile) { f.write("\n") },
		"many words": func(f tokenFile) { f.write("<html> not found </html>") },
	} {
		t.Run(name, func(t *testing.T) {
			file := newTokenFile(t, "old")
			watchInBubbleAs(t, consul.Options{TokenFile: file.path}, ServiceOptions{}, having("a"), func(t *testing.T, b *bubble) {
				b.Break(denying("old"))
				b.expect(sec, "0s: a")
				spoil(file)
				b.at(10 * sec)
				b.set("a b")
				b.expect(20*sec, "10s: a b")
				got := countLines(b.log.String(), `"level":"warn","file":`)
				verify.That(t, got == 1, "%d lines about the file, want one:\n%s", got, b.log.String())
				file.write("old")
				b.at(30 * sec)
				verify.Equal(t, countLines(b.log.String(), `"level":"info","file":`), 1, "log: %s", b.log.String())
			})
		})
	}
}
