package auth

import (
	"context"
	"crypto/ed25519"
	cryptorand "crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route/places"
	"sluice/test/verify"
)

// An issuer answers queries for its keys, in virtual time.
type issuer struct {
	t        *testing.T
	set      atomic.Pointer[string] // nil: it does not answer
	delay    atomic.Int64
	inFlight atomic.Int32

	mu    sync.Mutex
	asked []time.Time // guarded by mu
}

func (i *issuer) RoundTrip(request *http.Request) (*http.Response, error) {
	verify.That(i.t, i.inFlight.Add(1) == 1, "two queries at a time")
	defer i.inFlight.Add(-1)
	i.mu.Lock()
	if n := len(i.asked); n > 0 {
		verify.That(i.t, time.Since(i.asked[n-1]) >= queryFloor, "a query after %s", time.Since(i.asked[n-1]))
	}
	i.asked = append(i.asked, time.Now())
	i.mu.Unlock()
	select {
	case <-time.After(time.Duration(i.delay.Load())):
	case <-request.Context().Done():
		return nil, request.Context().Err()
	}
	set := i.set.Load()
	if set == nil {
		return nil, errors.New("the issuer is away")
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(*set))}, nil
}

func (i *issuer) publishes(names ...string) {
	set := setOf(names...)
	i.set.Store(&set)
}

func (i *issuer) queries() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.asked)
}

// follow returns an issuer, and rules with its keys.
func follow(t *testing.T, saved SavedKeys) (*issuer, *Tokens) {
	i := &issuer{t: t}
	r := rulesOf(t, setOf("rsa"))
	r.Keys = NewKeys(units.NewLocation("http://issuer/keys"), locality.ByOperator, saved)
	r.Keys.client.Transport = i
	return i, r
}

// followed is follow with an issuer whose keys of these names are known.
func followed(t *testing.T, names ...string) (*issuer, *Tokens) {
	i, r := follow(t, SavedKeys{})
	i.publishes(names...)
	r.Keys.Start(t.Context())
	t.Cleanup(r.Keys.Close)
	r.Keys.Await(t.Context())
	return i, r
}

// waits returns what a request does that waits as long as it may.
func waits() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), MaxKeyWait)
}

func tokenBy(t testing.TB, name string) []byte {
	algorithms := map[string]jose.SignatureAlgorithm{"rsa": jose.RS256, "ec": jose.ES256, "p384": jose.ES384, "ed": jose.EdDSA, "other": jose.ES256}
	return []byte(signed(t, algorithms[name], testKeys()[name], fmt.Sprintf(`{"alg":"%s","kid":"%s"}`, algorithms[name], name), goodClaims))
}

func kindOf(err error) string {
	fault := (*Fault)(nil)
	if !errors.As(err, &fault) {
		return "good"
	}
	return [...]string{"invalid", "expired", "denied", "unknown"}[fault.Kind]
}

// A token with a key that is not known makes the keys be read, once for all requests, and not
// before a while after the last query. All of them wait for it, also those of one client that have
// no place: they wait for no other query.
func TestRotation(t *testing.T) {
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		i, r := follow(t, SavedKeys{})
		i.publishes("rsa")
		_, err := r.Check(tokenBy(t, "rsa"), noon, places.Many, never)
		verify.Equal(t, kindOf(err), "unknown", "before the keys are known")
		r.Keys.Start(t.Context())
		defer r.Keys.Close()
		r.Keys.Await(t.Context())
		_, err = r.Check(tokenBy(t, "rsa"), noon, places.Many, never)
		verify.Equal(t, kindOf(err), "good", "with the first keys")

		i.delay.Store(int64(time.Second))
		published := []string{"rsa"}
		for n, of := range []struct {
			key      string
			client   places.Block
			requests int
		}{
			{"ec", places.Many, 100},
			{"ed", places.BlockOf(netip.MustParseAddr("10.0.0.1")), 10 * maxPerBlock},
		} {
			published = append(published, of.key)
			i.publishes(published...)
			start := time.Now()
			var requests sync.WaitGroup
			for range of.requests {
				requests.Go(func() {
					_, err := r.Check(tokenBy(t, of.key), noon, of.client, waits)
					verify.Equal(t, kindOf(err), "good", "with a new key")
				})
			}
			requests.Wait()
			verify.Equal(t, i.queries(), 2+n, "queries for many tokens with new keys")
			waited := time.Since(start)
			verify.That(t, waited <= queryFloor+time.Second, "they have waited %s", waited)
		}

		// Who names keys that nobody has gets no more queries than that.
		for range 10 {
			_, err := r.Check(tokenBy(t, "other"), noon, places.Many, waits)
			verify.Equal(t, kindOf(err), "invalid", "with a key of nobody")
		}
		verify.Equal(t, i.queries(), 13, "queries")

		// A key that the issuer withdraws is not known any more when they are read again.
		i.publishes("ec")
		time.Sleep(readEvery + 2*time.Second)
		_, err = r.Check(tokenBy(t, "rsa"), noon, places.Many, waits)
		verify.Equal(t, kindOf(err), "invalid", "with a withdrawn key, remembered before")
	})
}

// An issuer may have another key with the same name, as after a restart: the first token that is
// signed with it is refused, and makes the keys be read.
func TestAnotherKeyWithTheSameName(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(cryptorand.Reader)
	set := fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"%s"}]}`, base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
	byNew := []byte(signed(t, jose.EdDSA, key, `{"alg":"EdDSA","kid":"ed"}`, goodClaims))
	synctest.Test(t, func(t *testing.T) {
		i, r := followed(t, "ed")
		check := func(token []byte, want, when string) {
			t.Helper()
			_, err := r.Check(token, noon, places.Many, never)
			verify.Equal(t, kindOf(err), want, "%s", when)
		}
		check(tokenBy(t, "ed"), "good", "before the restart")
		time.Sleep(2 * queryFloor)
		i.set.Store(&set)
		check(byNew, "invalid", "the first one after it")
		synctest.Wait()
		check(byNew, "good", "the second one")
		check(tokenBy(t, "ed"), "invalid", "with the key before")

		// Who has neither key gets no more queries than one in a while.
		queries := i.queries()
		for range 100 {
			check(tokenBy(t, "ed"), "invalid", "again")
			time.Sleep(queryFloor / 20)
		}
		verify.That(t, i.queries()-queries <= 5, "%d queries in 25 s", i.queries()-queries)
	})
}

// While the issuer is away or answers nonsense, its last keys stay.
func TestOutageOfTheIssuer(t *testing.T) {
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		i, r := follow(t, SavedKeys{})
		r.Keys.Start(t.Context())
		defer r.Keys.Close()
		r.Keys.Await(t.Context())
		_, err := r.Check(tokenBy(t, "rsa"), noon, places.Many, never)
		verify.Equal(t, kindOf(err), "unknown", "without keys")
		i.publishes("rsa")
		time.Sleep(queryFloor + time.Millisecond)
		synctest.Wait()
		_, err = r.Check(tokenBy(t, "rsa"), noon, places.Many, never)
		verify.Equal(t, kindOf(err), "good", "after the outage at the start: a request has asked for the keys")

		wordy := `{"keys":[` + strings.Replace(setOf("rsa"), `{"keys":[{`, `{"x5u":"`+strings.Repeat("%", 1<<19)+`",`, 1)
		for _, answer := range []*string{nil, new(string), ptr(`{"keys":[]}`), ptr(strings.Repeat(" ", maxKeySetBytes+1)), &wordy} {
			i.set.Store(answer)
			time.Sleep(10 * time.Minute)
			status := r.Keys.Status()
			verify.That(t, status.Err != nil && len(status.Keys) == 1 && time.Since(status.Read) >= 10*time.Minute, "status %+v", status)
			verify.That(t, len(status.Err.Error()) <= maxFault, "an error of %d bytes: %.500q", len(status.Err.Error()), status.Err)
			_, err = r.Check(tokenBy(t, "rsa"), noon, places.Many, never)
			verify.Equal(t, kindOf(err), "good", "after a while without the issuer")
			_, err = r.Check(tokenBy(t, "ec"), noon, places.Many, waits)
			verify.Equal(t, kindOf(err), "unknown", "whether the issuer has the key is not known")
		}
		i.publishes("ec")
		time.Sleep(retryEvery + time.Millisecond)
		synctest.Wait()
		_, err = r.Check(tokenBy(t, "ec"), noon, places.Many, never)
		verify.Equal(t, kindOf(err), "good", "after the outage: no token has asked for the keys")

		// Another process has them at once, without the issuer.
		saved, ok := r.Keys.Save()
		_, next := follow(t, saved)
		_, err = next.Check(tokenBy(t, "ec"), noon, places.Many, never)
		verify.That(t, ok && kindOf(err) == "good", "in the next process: %v", err)
	})
}

func ptr(s string) *string { return &s }

// One client with tokens of unknown keys leaves places for others, and a request waits no longer
// than its client.
func TestWaitsForKeys(t *testing.T) {
	testKeys()
	synctest.Test(t, func(t *testing.T) {
		i, r := followed(t, "rsa")
		i.publishes("rsa", "ec")
		ctx, cancel := context.WithCancel(t.Context())
		var requests sync.WaitGroup
		for range 10 * maxPerBlock {
			requests.Go(func() {
				_, err := r.Check(tokenBy(t, "other"), noon, places.BlockOf(netip.MustParseAddr("10.0.0.1")), func() (context.Context, context.CancelFunc) { return ctx, func() {} })
				verify.That(t, err != nil, "a foreign key is believed")
			})
		}
		synctest.Wait()
		verify.Equal(t, r.Keys.waiting.Taken(), maxPerBlock, "places of one client")
		_, err := r.Check(tokenBy(t, "ec"), noon, places.BlockOf(netip.MustParseAddr("10.0.0.2")), waits)
		verify.Equal(t, kindOf(err), "good", "beside them")
		cancel()
		requests.Wait()
		verify.Equal(t, r.Keys.waiting.Taken(), 0, "places after all")
	})
}

// Random rotations, outages and tokens: a token passes only if the issuer has published its key at
// a time that the set may know, and no good token is refused while the issuer answers. The issuer's
// transport checks the queries.
func TestRandomRotations(t *testing.T) {
	testKeys()
	tokens := make(map[string][]byte)
	names := []string{"rsa", "ec", "p384", "ed"}
	for _, name := range append(names, "other") {
		tokens[name] = tokenBy(t, name)
	}
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 26))
			published := []string{"rsa"}
			i, r := followed(t, published...)
			away, changed := false, time.Now()
			for step := range 60 {
				switch random.IntN(6) {
				case 0:
					published = nil
					for _, name := range names {
						if random.IntN(2) == 0 {
							published = append(published, name)
						}
					}
					if len(published) == 0 {
						published = []string{"ed"}
					}
					if changed = time.Now(); !away {
						i.publishes(published...)
					}
				case 1:
					if away = !away; away {
						i.set.Store(nil)
					} else {
						i.publishes(published...)
					}
				case 2:
					time.Sleep(time.Duration(random.Int64N(int64(readEvery))))
				case 3:
					i.delay.Store(random.Int64N(int64(queryTimeout)))
				default:
					name := append(names, "other")[random.IntN(5)]
					_, err := r.Check(tokens[name], noon, places.Many, waits)
					got := kindOf(err)
					known := false
					for _, p := range published {
						known = known || p == name
					}
					switch {
					case name == "other" && got == "good":
						t.Fatalf("seed %d, step %d: a foreign key is believed", seed, step)
					case known && !away && got != "good":
						t.Fatalf("seed %d, step %d: %s is published and the token is %s: %v", seed, step, name, got, err)
					case !known && got == "good" && !away && time.Since(changed) > readEvery+queryTimeout && r.Keys.Status().Err == nil:
						t.Fatalf("seed %d, step %d: %s was withdrawn %s ago", seed, step, name, time.Since(changed))
					case got == "unknown" && !away && r.Keys.Status().Err == nil:
						t.Fatalf("seed %d, step %d: the issuer answers, and the token is %s", seed, step, got)
					}
				}
			}
		})
	}
}

// The keys of a file are read again, and a file with an error changes nothing.
func TestKeysOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	_, err := OpenKeys(path)
	verify.That(t, errors.Is(err, os.ErrNotExist), "without the file: %v", err)
	write(t, path, setOf("rsa"))
	r := rulesOf(t, setOf("rsa"))
	r.Keys = verify.Result(OpenKeys(path)).Must(t)
	defer r.Keys.Close()
	_, err = r.Check(tokenBy(t, "ec"), noon, places.Many, never)
	verify.Equal(t, kindOf(err), "invalid", "no request waits for a file")
	write(t, path, "{")
	changed, err := r.Keys.Refresh()
	verify.That(t, !changed && err != nil && strings.HasPrefix(err.Error(), "keys: "+path+": "), "a broken file: %v, %v", changed, err)
	write(t, path, setOf("rsa", "ec"))
	changed, err = r.Keys.Refresh()
	verify.That(t, changed && err == nil, "another file: %v, %v", changed, err)
	_, err = r.Check(tokenBy(t, "ec"), noon, places.Many, never)
	verify.Equal(t, kindOf(err), "good", "with the key of the file")
	changed, err = r.Keys.Refresh()
	verify.That(t, !changed && err == nil, "the same file: %v, %v", changed, err)
}

// Keys come from no address that is not allowed, and not from where a redirect leads.
func TestAddressesOfKeys(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, setOf("rsa"))
	}))
	defer server.Close()
	for _, test := range []struct {
		path string
		deny error
		want string
	}{{"/", nil, ""}, {"/redirect", nil, "status 302"}, {"/", errors.New("not allowed"), "not allowed"}} {
		s := NewKeys(units.NewLocation(server.URL+test.path), func(context.Context, string, string, syscall.RawConn) error { return test.deny }, SavedKeys{})
		s.Start(t.Context())
		s.Await(t.Context())
		status := s.Status()
		s.Close()
		verify.That(t, (test.want == "") == (status.Err == nil) && strings.HasSuffix(fmt.Sprint(status.Err), test.want) || test.want == "" && len(status.Keys) == 1,
			"%s: %+v", test.path, status)
	}
	verify.Equal(t, asked.Load(), 2, "queries")
}
