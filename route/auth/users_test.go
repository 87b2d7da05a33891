package auth

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tg123/go-htpasswd"

	"sluice/route/places"
	"sluice/test/verify"
)

// The password of all is "secret".
const someUsers = `# users
bcrypt:$2a$04$6N21KD3VTzF.JZ18AyPfTuYIryLDwNADkL2QPAJWvBqw3AWRCSFPK
sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=

apr1:$apr1$salt1234$G61s9lpZAELkzUFCbj/53/
sha256:$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.
sha512:$6$rounds=1234$abcdefgh$JYy1Bl2SyLJWf33X/ypLFfV0PTI7kUcSv1KagEAuF6T.jEole3EQfDDZRy9BRYEi9Zd6aYdRKWdcJwCEXNseD1
`

func never() (context.Context, context.CancelFunc) { panic("no wait is expected") }

func write(t *testing.T, path, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestUsers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, someUsers)
	u := verify.Result(OpenUsers(path)).Must(t)
	for _, name := range []string{"bcrypt", "sha", "apr1", "sha256", "sha512", "nobody", "", "# users"} {
		for range 2 {
			for password, right := range map[string]bool{"secret": true, "Secret": false, "": false} {
				want := right && strings.Contains(someUsers, "\n"+name+":") && name != ""
				got, err := u.Verify(places.Many, name, password, never)
				verify.That(t, got == want && err == nil, "%q, %q: got %v, %v", name, password, got, err)
			}
		}
	}

	// A changed file is used, one with an error is not.
	write(t, path, strings.Replace(someUsers, "sha:", "other:", 1))
	changed, err := u.Refresh()
	verify.That(t, changed && err == nil, "changed: %v, %v", changed, err)
	ok, _ := u.Verify(places.Many, "sha", "secret", never)
	verify.That(t, !ok, "a removed user is known")
	for _, text := range []string{"", "# nobody\n", "plain:secret\n", "noHash\n", ":{SHA}x\n", "a\x01:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", strings.Repeat("#", maxFileBytes+1)} {
		write(t, path, text)
		changed, err := u.Refresh()
		verify.That(t, !changed && err != nil, "%.20q: %v, %v", text, changed, err)
		ok, _ := u.Verify(places.Many, "other", "secret", never)
		verify.That(t, ok, "the users are lost")
	}
	listed := verify.Result(ListedUsers(strings.Split(someUsers, "\n"), true)).Must(t)
	ok, _ = listed.Verify(places.Many, "sha512", "secret", never)
	verify.That(t, ok, "a listed user is not known")
	changed, err = listed.Refresh()
	verify.That(t, !changed && err == nil, "listed users have changed: %v, %v", changed, err)
	_, err = ListedUsers([]string{"plain:secret"}, false)
	verify.That(t, err != nil && !strings.Contains(err.Error(), "secret"), "a listed user without a hash: %v", err)
	_, err = OpenUsers(path + ".missing")
	verify.That(t, errors.Is(err, os.ErrNotExist), "a missing file: %v", err)
}

// A hash that takes minutes is an error in the file: whoever tries a password would take a
// processor for as long. So is one that no password has.
func TestHashesAreBounded(t *testing.T) {
	const salted = "6N21KD3VTzF.JZ18AyPfTuYIryLDwNADkL2QPAJWvBqw3AWRCSFPK"
	for hash, want := range map[string]string{
		"$2y$14$" + salted:              "",
		"$2y$15$" + salted:              "line 2: the hash of bcrypt has the cost 15: want at most 14",
		"$2a$31$" + salted:              "line 2: the hash of bcrypt has the cost 31: want at most 14",
		"$2b$10$" + salted[:20]:         "line 2: want a hash of bcrypt: ",
		"$2b$1x$" + salted:              "line 2: want a hash of bcrypt: ",
		"$6$salt$hash":                  "",
		"$5$salt$hash":                  "",
		"$6$rounds=1000000$salt$hash":   "",
		"$6$rounds=1000001$salt$hash":   "line 2: the hash of crypt has rounds=1000001: want from 1000 to 1000000",
		"$5$rounds=999999999$salt$hash": "line 2: the hash of crypt has rounds=999999999: want from 1000 to 1000000",
		"$6$rounds=999$salt$hash":       "line 2: the hash of crypt has rounds=999: want from 1000 to 1000000",
		"$6$rounds=many$salt$hash":      "line 2: the hash of crypt has rounds=many: want from 1000 to 1000000",
		"$6$rounds=5000$salt":           "line 2: want a hash of crypt: ",
		"$6$salt$hash$more":             "line 2: want a hash of crypt: ",
	} {
		path := filepath.Join(t.TempDir(), "users")
		write(t, path, "# users\nslow:"+hash+"\n")
		_, err := OpenUsers(path)
		verify.That(t, (err == nil) == (want == "") && (err == nil || strings.Contains(err.Error(), path+": "+want)), "%s: %v, want %q", hash, err, want)
	}
	// Who may only register a service has less of the time that all share.
	for hash, want := range map[string]string{
		"$2y$12$" + salted: "", "$2y$13$" + salted: "want at most 12", "$6$rounds=100000$salt$hash": "", "$6$rounds=100001$salt$hash": "want from 1000 to 100000",
	} {
		_, err := ListedUsers([]string{"slow:" + hash}, true)
		verify.That(t, (err == nil) == (want == "") && (err == nil || strings.Contains(err.Error(), want)), "%s in a tag: %v, want %q", hash, err, want)
	}
}

// Who is verified needs no turn. Others wait as long as they may. Nothing is computed for a
// password that htpasswd would not take: it needs no turn, and the time of crypt grows with its
// length.
func TestVerifyWaitsForItsTurn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, someUsers)
	u := verify.Result(OpenUsers(path)).Must(t)
	u.Verify(places.Many, "sha", "secret", never)
	for range processors {
		turns.Take(places.Many, nil)
	}
	ok, err := u.Verify(places.Many, "sha", "secret", never)
	verify.That(t, ok && err == nil, "known: %v, %v", ok, err)
	brief := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), time.Millisecond)
	}
	ok, err = u.Verify(places.Many, "sha", "wrong", brief)
	verify.That(t, !ok && err == ErrBusy, "unknown: %v, %v", ok, err)
	ok, err = u.Verify(places.Many, "sha", strings.Repeat("x", 256), never)
	verify.That(t, !ok && err == nil, "256 bytes: %v, %v", ok, err)
	_, err = u.Verify(places.Many, "sha", strings.Repeat("x", 255), brief)
	verify.That(t, err == ErrBusy, "255 bytes: %v, want %v", err, ErrBusy)
	for range processors {
		turns.Give(places.Many)
	}
}

// Of requests that come at once with the same password, one computes its hash: the others are
// verified as soon as it has, in their turn or at the end of their wait.
func TestVerifyOnceForManyRequests(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	for _, ends := range []bool{false, true} {
		write(t, path, someUsers)
		u := verify.Result(OpenUsers(path)).Must(t)
		loaded := u.loaded.Load()
		for range processors {
			turns.Take(places.Many, nil)
		}
		ctx, cancel := context.WithCancel(t.Context())
		waits, verified := make(chan struct{}), make(chan error)
		go func() {
			ok, err := u.Verify(places.Many, "sha", "secret", func() (context.Context, context.CancelFunc) {
				close(waits)
				return ctx, func() {}
			})
			if err == nil && !ok {
				err = errors.New("the password is wrong")
			}
			verified <- err
		}()
		<-waits
		loaded.remember(loaded.key("sha", "secret"), "sha")
		loaded.file = new(htpasswd.File) // of which nothing is asked
		if ends {
			cancel()
			verify.NoError(t, <-verified)
		}
		for range processors {
			turns.Give(places.Many)
		}
		if !ends {
			verify.NoError(t, <-verified)
		}
		cancel()
	}
}

// Whom a change of the file does not concern stays verified.
func TestVerifiedUsersStayVerified(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, someUsers)
	u := verify.Result(OpenUsers(path)).Must(t)
	names := []string{"bcrypt", "sha", "apr1", "sha256", "sha512"}
	for _, name := range names {
		ok, err := u.Verify(places.Many, name, "secret", never)
		verify.That(t, ok && err == nil, "%s: %v, %v", name, ok, err)
	}
	const another = "$2a$04$6N21KD3VTzF.JZ18AyPfTuYIryLDwNADkL2QPAJWvBqw3AWRCSFPK" // of the same password
	changed := strings.Replace(someUsers, "apr1:", "other:", 1)
	changed = strings.Replace(changed, "sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "sha:"+another, 1)
	write(t, path, changed+"sha512:"+another+"\nnew:"+another+"\n")
	var saved SavedUsers
	verify.NoError(t, json.Unmarshal(verify.Result(json.Marshal(u.Save())).Must(t), &saved))
	saved.Verified = append(saved.Verified, VerifiedUser{Name: "new", Hash: another, Key: []byte("short")})
	next := verify.Result(OpenUsers(path)).Must(t)
	next.Restore(saved)
	verify.Result(u.Refresh()).Must(t)
	for range processors {
		turns.Take(places.Many, nil)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for where, users := range map[string]*Users{"here": u, "in another process": next} {
		for name, want := range map[string]bool{"bcrypt": true, "sha256": true, "apr1": false, "other": false, "sha": false, "sha512": false, "new": false} {
			ok, err := users.Verify(places.Many, name, "secret", func() (context.Context, context.CancelFunc) { return over, func() {} })
			verify.That(t, ok == want && (err == ErrBusy) == !want, "%s after the change, %s: %v, %v, want %v", name, where, ok, err, want)
		}
	}
	for range processors {
		turns.Give(places.Many)
	}
}
