package acme

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/rs/zerolog"

	"sluice/config/units"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/testcert"
	"sluice/test/verify"
)

// newAuthority returns an authority that issues nothing, and a channel with a value for each
// question.
func newAuthority(t *testing.T) (directory units.Location, asked chan string) {
	t.Helper()
	asked = make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Path:
		default:
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(server.Close)
	return units.NewLocation(server.URL + "/dir"), asked
}

// storePair stores the certificate of a.example and its private key as certmagic does.
func storePair(t *testing.T, s certmagic.Storage, issuer string, cert, key []byte) {
	t.Helper()
	for name, value := range map[string][]byte{
		certmagic.StorageKeys.SiteCert(issuer, "a.example"): cert, certmagic.StorageKeys.SitePrivateKey(issuer, "a.example"): key,
		certmagic.StorageKeys.SiteMeta(issuer, "a.example"): []byte(`{"sans":["a.example"]}`),
	} {
		verify.NoError(t, s.Store(t.Context(), name, value))
	}
}

// A certificate that does not fit its private key is not there, in both storages.
func TestMisfitsAreAbsent(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(patiently(t.Context()))
	inConsul := newConsulStorage(newClient(t, agent.URL(), ""), prefix, nil, zerolog.New(&log))
	defer inConsul.close()
	inFiles := newFiles(t.TempDir(), false, zerolog.New(&log))
	defer inFiles.close()
	cert, key := testcert.PEM("a.example")
	_, other := testcert.PEM("a.example")
	for name, s := range map[string]certmagic.Storage{"consul": inConsul, "files": inFiles} {
		log.Reset()
		verify.NoError(t, s.Store(ctx, "a/a.crt", cert))
		verify.NoError(t, s.Store(ctx, "a/a.key", other))
		for range 2 {
			_, err := s.Load(ctx, "a/a.crt")
			verify.That(t, errors.Is(err, fs.ErrNotExist) && !s.Exists(ctx, "a/a.crt"), "%s: it is there: %v", name, err)
		}
		before := patiently(ctx) // not what reads the certificate later
		value, err := s.Load(before, "a/a.key")
		verify.That(t, err == nil && bytes.Equal(value, other) && s.Exists(before, "a/a.key"), "%s: the key is not there: %v", name, err)
		verify.Equal(t, strings.Count(log.String(), "does not fit its private key"), 1, "%s: %s", name, log.String())
		verify.NoError(t, s.Store(ctx, "a/a.key", key))
		value, err = s.Load(ctx, "a/a.crt")
		verify.That(t, err == nil && bytes.Equal(value, cert) && s.Exists(ctx, "a/a.crt"), "%s: one that fits is not there: %v", name, err)
	}
	cancel()
	for name, s := range map[string]certmagic.Storage{"consul": inConsul, "files": inFiles} {
		_, err := s.Load(ctx, "a/a.crt")
		verify.That(t, errors.Is(err, context.Canceled), "%s: it is there for a name that is no longer managed: %v", name, err)
	}
}

// Whatever the directory has or lacks, in the end there is an order: of a certificate with another
// key, as a crash leaves it, and once a directory that could not be read can be.
func TestOrdersDespiteTheDirectory(t *testing.T) {
	cert, _ := testcert.PEM("a.example")
	_, key := testcert.PEM("a.example")
	for name, dir := range map[string]string{"another key": t.TempDir(), "unreadable": filepath.Join(t.TempDir(), "storage")} {
		directory, asked := newAuthority(t)
		m := newManager(t, Options{Directory: directory, Storage: dir})
		unreadable := name == "unreadable"
		if unreadable {
			verify.NoError(t, os.WriteFile(dir, nil, 0o600)) // it is not a directory
		} else {
			storePair(t, m.files, m.issuer.IssuerKey(), cert, key)
		}
		verify.NoError(t, m.Manage([]string{"a.example"}))
		if unreadable {
			consultest.Await(t, "the fault is told", func() bool { return m.Statuses([]string{"a.example"})[0].Fault != nil })
			verify.NoError(t, os.Remove(dir))
		}
		consultest.Await(t, name+": there is an order", func() bool { return len(asked) > 0 })
	}
}

// Of a damaged value, JSON of a certificate or of the account, or the private key of the account,
// the log has the key, and there is an order, in both storages.
func TestOrdersDespiteDamagedValues(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	client := newClient(t, agent.URL(), "")
	for name, value := range map[string]string{"empty": "", "cut": `{"sans":["a.ex`, "list": "[]", "typeless": `{"sans":1,"contact":1}`} {
		for _, of := range []string{"certificate", "account", "key"} {
			for _, place := range []string{"files", "consul"} {
				directory, asked := newAuthority(t)
				log := new(subprocess.Output)
				o := Options{Directory: directory, Email: "me@a.example", Storage: t.TempDir(), Log: zerolog.New(log)}
				if place == "consul" {
					o.Consul, o.Prefix, o.Storage = client, prefix+"-"+name+"-"+of, ""
				}
				m := newManager(t, o)
				issuer, storage := m.issuer.IssuerKey(), m.config.Storage
				cert, private := testcert.PEM("a.example")
				account := "acme/" + certmagic.StorageKeys.Safe(issuer) + "/users/me@a.example/me"
				damaged := account + ".json"
				switch of {
				case "certificate":
					storePair(t, storage, issuer, cert, private)
					damaged = certmagic.StorageKeys.SiteMeta(issuer, "a.example")
				case "account":
					verify.NoError(t, storage.Store(t.Context(), account+".key", private))
				default:
					verify.NoError(t, storage.Store(t.Context(), account+".json", []byte(`{"status":"valid"}`)))
					damaged = account + ".key"
				}
				verify.NoError(t, storage.Store(t.Context(), damaged, []byte(value)))
				verify.NoError(t, m.Manage([]string{"a.example"}))
				what := fmt.Sprintf("%s, %s in %s: ", name, of, place)
				consultest.Await(t, what+"there is an order", func() bool { return len(asked) > 0 })
				verify.That(t, !storage.Exists(t.Context(), damaged), "%sit exists", what)
				verify.Equal(t, strings.Count(log.String(), `"key":"`+damaged+`"`), 1, "%s%s", what, log.String())
			}
		}
	}
}

// renewedStorage is a storage in which another replica renews between two reads.
type renewedStorage struct {
	certmagic.Storage
	once  sync.Once
	renew func()
}

func (s *renewedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	value, err := s.Storage.Load(ctx, key)
	if strings.HasSuffix(key, ".key") {
		s.once.Do(s.renew)
	}
	return value, err
}

// A certificate that another replica renews while it is read is in use, and costs no order.
func TestReadAcrossARenewal(t *testing.T) {
	directory, asked := newAuthority(t)
	m := newManager(t, Options{Directory: directory, Storage: t.TempDir()})
	store := func(number int64) {
		cert, key := numbered("a.example", number, 24*time.Hour)
		storePair(t, m.files, m.issuer.IssuerKey(), cert, key)
	}
	store(1)
	m.config.Storage = &renewedStorage{Storage: m.files, renew: func() { store(2) }}
	verify.NoError(t, m.Manage([]string{"a.example"}))
	consultest.Await(t, "the certificate is in use", func() bool { return len(m.Certificates([]string{"a.example"})) > 0 })
	verify.Equal(t, inUse(m, "a.example"), "2", "the certificate")
	verify.Equal(t, len(asked), 0, "questions to the authority")
}

// A valid certificate of the storage is used, and not one of another authority that ends later.
func TestStoredCertificatesBeforeRestored(t *testing.T) {
	for _, test := range []struct {
		name string
		ends time.Duration // the stored one
		want string
	}{{"valid", time.Hour, "1"}, {"expired", -time.Hour, "2"}} {
		m := newManager(t, Options{Storage: t.TempDir()})
		cert, key := numbered("a.example", 1, test.ends)
		storePair(t, m.files, m.issuer.IssuerKey(), cert, key)
		restore(m, "a.example", 2, 2*time.Hour)
		verify.NoError(t, m.Manage([]string{"a.example"}))
		consultest.Await(t, "the stored one is known", func() bool { return len(m.cache.AllMatchingCertificates("a.example")) > 0 })
		verify.Equal(t, inUse(m, "a.example"), test.want, "%s: the certificate", test.name)
	}
}

// What an order has failed with is over when another replica's certificate is in use.
func TestFailureEndsWithAnotherCertificate(t *testing.T) {
	m := newManager(t, Options{Storage: t.TempDir()})
	verify.NoError(t, m.Manage([]string{"a.example"}))
	failed := errors.New("no challenge was answered")
	m.record("a.example", failed)
	fault := func() error { return m.Statuses([]string{"a.example"})[0].Fault }
	verify.That(t, errors.Is(fault(), failed), "the failure is not told: %v", fault())
	restore(m, "a.example", 1, 24*time.Hour)
	verify.Succeeds(t, fault())
	m.record("a.example", failed)
	verify.That(t, errors.Is(fault(), failed), "the failure of the renewal is not told: %v", fault())
}

// A start with a copy that has expired meanwhile has the certificate that is in Consul.
func TestExpiredCopyIsNotLoaded(t *testing.T) {
	t.Parallel()
	agent, prefix := shared.Agent(t)
	m := newManager(t, Options{Consul: newClient(t, agent.URL(), ""), Prefix: prefix, Storage: t.TempDir()})
	for number, s := range []certmagic.Storage{m.files, m.consul} {
		cert, key := numbered("a.example", int64(number), []time.Duration{-time.Hour, time.Hour}[number])
		storePair(t, s, m.issuer.IssuerKey(), cert, key)
	}
	m.Load(patiently(t.Context()), []string{"A.example"})
	verify.Equal(t, inUse(m, "a.example"), "1", "the certificate")
}

// A refusal, such as by a proxy in front of Consul that is being changed, costs no order.
func TestOrdersOutliveARefusal(t *testing.T) {
	var refused atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && refused.Add(1) <= 2 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, "true")
	}))
	defer server.Close()
	s := newStorage(t, server.URL, "", "sluice-acme", nil)
	verify.NoError(t, s.Store(t.Context(), "a/a.key", nil))
	verify.Equal(t, refused.Load(), 3, "writes")
}

// The end of a manager does not wait for an authority that does not answer, whatever certmagic asks
// it: a reload or a stop would take minutes for each certificate.
func TestEndDespiteAHangingAuthority(t *testing.T) {
	asked, release := make(chan string, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.URL.Path:
		default:
		}
		<-release
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	defer close(release)
	m := newManager(t, Options{Directory: units.NewLocation(server.URL + "/dir"), Storage: t.TempDir(), checkEvery: 10 * time.Millisecond})
	cert, key := testcert.PEM("a.example")
	storePair(t, m.files, m.issuer.IssuerKey(), cert, key)
	window := fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, time.Now().Add(time.Hour).Format(time.RFC3339), time.Now().Add(2*time.Hour).Format(time.RFC3339))
	verify.NoError(t, m.files.Store(t.Context(), certmagic.StorageKeys.SiteMeta(m.issuer.IssuerKey(), "a.example"),
		[]byte(`{"sans":["a.example"],"issuer_data":{"renewal_info":`+window+`}}`)))
	verify.Result(m.config.CacheManagedCertificate(t.Context(), "a.example")).Must(t)
	<-asked // when to renew it
	closed := make(chan struct{})
	go func() {
		m.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("the manager waits for the authority")
	}
}

// A storage that does not answer is not asked for every certificate: the time in which certmagic
// looks for the ones to renew does not grow with their number. Once it answers, all are read.
func TestHangingReadsAreFew(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newFiles(dir, false, zerolog.Nop())
		defer s.close()
		asked := 0
		hang := func(ctx context.Context) error {
			asked++
			<-ctx.Done()
			return ctx.Err()
		}
		begin := time.Now()
		for range 100 {
			verify.That(t, s.once(t.Context(), hang) != nil, "a read that hangs succeeds")
		}
		verify.Equal(t, time.Since(begin), readTimeout, "the time of all reads")
		time.Sleep(readTimeout)
		verify.That(t, s.once(t.Context(), hang) != nil, "a read that hangs succeeds")
		verify.Equal(t, asked, 2, "reads")
		verify.NoError(t, s.Store(t.Context(), "a", nil))
		verify.NoError(t, s.once(t.Context(), func(context.Context) error { return nil }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		verify.That(t, s.once(ctx, hang) != nil, "a read that hangs succeeds")
		verify.NoError(t, s.once(t.Context(), func(context.Context) error { return nil })) // it did not have its time
	})
}
