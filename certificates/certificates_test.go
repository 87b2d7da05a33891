package certificates

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/test/testcert"
	"sluice/test/verify"
)

func TestFilesThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	star, other := testcert.Write(t, dir, "star"), testcert.Write(t, dir, "other")
	text, half := filepath.Join(dir, "text"), filepath.Join(dir, "half")
	verify.NoError(t, os.WriteFile(text, []byte("hello"), 0o600))
	pem := verify.Result(os.ReadFile(star.Cert)).Must(t)
	verify.NoError(t, os.WriteFile(half, slices.Concat(pem, pem[:len(pem)/2]), 0o600))
	large := filepath.Join(dir, "large")
	verify.NoError(t, os.WriteFile(large, make([]byte, maxFileBytes+1), 0o600))
	empty := t.TempDir()
	for _, test := range []struct {
		files Files
		want  string
	}{
		{Files{}, ""},
		{Files{CA: star.Cert, Cert: star.Cert, Key: star.Key}, ""},
		{Files{Cert: star.Cert}, "give both"},
		{Files{Key: star.Key}, "give both"},
		{Files{CA: dir + "/none"}, "trusted certificates: open"},
		{Files{CA: text}, "has none in PEM format"},
		{Files{CA: half}, "ends within a certificate"},
		{Files{CADirectory: empty}, "has none in PEM format"},
		{Files{CADirectory: dir}, "ends within a certificate"},
		{Files{Cert: star.Cert, Key: star.Cert}, "certificate: " + star.Cert},
		{Files{Cert: star.Cert, Key: other.Key}, "private key does not match"},
		{Files{Cert: dir + "/none", Key: star.Key}, "certificate: open"},
		{Files{Cert: half, Key: star.Key}, "ends within a certificate"},
		{Files{Cert: large, Key: star.Key}, "larger than"},
	} {
		_, err := Read(test.files)
		verify.That(t, (err == nil) == (test.want == "") && (err == nil || strings.Contains(err.Error(), test.want)), "%+v: %v, want %q", test.files, err, test.want)
	}
}

// What one reader found earlier does not replace what another one found later.
func TestFollowWithSeveralReaders(t *testing.T) {
	dir := t.TempDir()
	files := testcert.Write(t, dir, "star")
	f := verify.Result(Follow(Files{CA: files.Cert}, nil)).Must(t)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	defer readers.Wait()
	defer close(stop)
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					f.Read()
				}
			}
		})
	}
	away := filepath.Join(dir, "away")
	for n := range 1000 {
		verify.NoError(t, os.Rename(files.Cert, away))
		f.Read()
		verify.Require(t, f.Statuses()[0].Fault != nil, "round %d: the file is not there, and no fault is shown", n)
		verify.NoError(t, os.Rename(away, files.Cert))
		f.Read()
		err := f.Statuses()[0].Fault
		verify.Require(t, err == nil, "round %d: the file is there, and the fault is %v", n, err)
	}
}

// A follower uses changed files, and keeps the last good contents while the files
// cannot be used.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	files := testcert.Write(t, dir, "star")
	var told []string
	f := verify.Result(Follow(Files{Cert: files.Cert, Key: files.Key}, func(err error) {
		if err == nil {
			told = append(told, "used")
		} else {
			told = append(told, err.Error())
		}
	})).Must(t)
	expect := func(what string, fresh bool, news ...string) {
		t.Helper()
		before := f.Contents()
		for range 2 { // reported once
			got := f.Read()
			verify.That(t, (got != before) == fresh && got == f.Contents(), "%s: new contents: %v, want %v", what, got != before, fresh)
		}
		verify.That(t, slices.EqualFunc(told, news, strings.Contains), "%s: told %q, want %q", what, told, news)
		told = nil
	}
	expect("unchanged", false)
	cert, key := testcert.PEM("star")
	verify.NoError(t, os.WriteFile(files.Cert, cert, 0o600))
	expect("the key is still to come", false, "does not match")
	verify.NoError(t, os.WriteFile(files.Key, key, 0o600))
	expect("both", true, "used")
	verify.NoError(t, os.Remove(files.Key))
	expect("no key", false, "no such file")
	status := f.Statuses()[0]
	verify.That(t, status.Fault != nil, "the status has no fault")
	verify.NoError(t, os.WriteFile(files.Cert, cert[:len(cert)/2], 0o600))
	expect("half a certificate", false)
	verify.NoError(t, os.WriteFile(files.Key, key, 0o600))
	expect("half a certificate with its key", false, "ends within a certificate")
	verify.NoError(t, os.WriteFile(files.Cert, cert, 0o600))
	expect("as before", false, "used")
	status = f.Statuses()[0]
	verify.That(t, status.Fault == nil, "the status has the fault %v", status.Fault)
}

// A chain expires with its first certificate, trusted certificates with their last.
func TestStatuses(t *testing.T) {
	const day = 24 * time.Hour
	now := time.Now()
	dir := t.TempDir()
	long, key := testcert.PEM("star", testcert.Lasting(-day, 90*day), func(c *x509.Certificate) { c.DNSNames = []string{"a.example", "b.example"} })
	short, _ := testcert.PEM("intermediate", testcert.Lasting(-2*day, 20*day))
	files := Files{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	verify.NoError(t, os.WriteFile(files.Cert, slices.Concat(long, short), 0o600))
	verify.NoError(t, os.WriteFile(files.CA, slices.Concat(short, long), 0o600))
	verify.NoError(t, os.WriteFile(files.Key, key, 0o600))
	f := verify.Result(Follow(files, nil)).Must(t)
	all := f.Statuses()
	verify.Require(t, len(all) == 2 && all[0].Kind == KindCertificate && all[1].Kind == KindTrusted && all[0].File == files.Cert && all[1].File == files.CA, "got %+v", all)
	verify.Slices(t, all[0].Names, []string{"a.example", "b.example"}, "names")
	for _, test := range []struct {
		days      int
		pair, CAs State
	}{
		{-3, NotYetValid, NotYetValid},
		{0, Valid, Valid},
		{12, Valid, Valid},
		{13, Expiring, Valid}, // in the last third of 22 days
		{19, Expiring, Valid},
		{21, Expired, Valid},
		{75, Expired, Valid},
		{77, Expired, Expiring}, // in the last 14 days
		{91, Expired, Expired},
	} {
		at := now.Add(time.Duration(test.days) * day)
		pair, cas := all[0].State(at), all[1].State(at)
		verify.That(t, pair == test.pair && cas == test.CAs, "after %d days: %s and %s, want %s and %s", test.days, pair, cas, test.pair, test.CAs)
	}
}

// To open a named pipe would wait for a writer.
func TestPipeInPlaceOfACertificate(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	verify.NoError(t, syscall.Mkfifo(pipe, 0o600))
	_, err := Read(Files{Cert: pipe, Key: pipe})
	verify.That(t, err != nil && strings.Contains(err.Error(), "not a regular file"), "%v", err)
	_, err = Copy{pipe}.Load()
	verify.That(t, err != nil && strings.Contains(err.Error(), "not a regular file"), "a copy: %v", err)
}
