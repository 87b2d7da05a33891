package saved

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/test/parallel"
	"sluice/test/verify"
)

const source = `consul service "star"`

// set returns two instances with all fields.
func set(ids ...string) []discovery.Instance {
	var set []discovery.Instance
	for n, id := range ids {
		set = append(set, discovery.Instance{
			Service: "star", ID: id, Node: "n", Address: "2001:db8::1", Port: 8000 + n, NodeAddress: "10.0.0.1", Weight: 3,
			Tags: []string{"v1"}, Meta: map[string]string{"zone": "a"}, Datacenter: "dc1",
			Status: discovery.StatusWarning, Detail: `disk "full"`, Probation: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC),
		})
	}
	return set
}

// fixture is a store in a temporary directory, and the status of its watches.
type fixture struct {
	t       *testing.T
	path    string
	maxAge  time.Duration
	log     bytes.Buffer
	watches []discovery.WatchStatus

	addresses string // of all sources

	mu   sync.Mutex                      // guards the field below
	sets map[string][]discovery.Instance // put, by service
}

// states returns the states of the watches with a set.
func (f *fixture) states() map[string]discovery.WatchState {
	f.mu.Lock()
	defer f.mu.Unlock()
	states := make(map[string]discovery.WatchState)
	for _, w := range f.watches {
		set, known := f.sets[w.Service]
		states[w.Service] = discovery.WatchState{Source: w.Source, Addresses: f.addresses, Known: known, Set: set, Fresh: w.State == discovery.WatchFresh, Endpoint: w.Endpoint, LastSuccess: w.LastSuccess, Restored: w.Restored}
	}
	return states
}

// put changes the set of a service.
func (f *fixture) put(s *Store, service string, set []discovery.Instance) {
	f.mu.Lock()
	if f.sets == nil {
		f.sets = make(map[string][]discovery.Instance)
	}
	f.sets[service] = set
	f.mu.Unlock()
	s.Changed()
}

func newFixture(t *testing.T) *fixture {
	return &fixture{t: t, path: filepath.Join(t.TempDir(), "snapshot.json")}
}

func (f *fixture) open() *Store {
	f.t.Helper()
	o := Options{Path: f.path, MaxAge: f.maxAge, Log: zerolog.New(&f.log), States: f.states}
	return verify.Result(Open(o)).Must(f.t)
}

// used returns the set of star that a store has.
func (f *fixture) used(s *Store) (set []discovery.Instance, ok bool) {
	state, ok := s.Get("star", source, f.addresses)
	return state.Set, ok
}

// answered is the status of a watch whose registry answered at a time.
func answered(service string, at time.Time) discovery.WatchStatus {
	return discovery.WatchStatus{Service: service, Source: source, Endpoint: "http://c", State: discovery.WatchFresh, LastSuccess: at}
}

// saved returns a fixture whose file has the sets of star and other.
func saved(t *testing.T, at time.Time) *fixture {
	t.Helper()
	f := newFixture(t)
	f.watches = []discovery.WatchStatus{answered("star", at), answered("other", at)}
	s := f.open()
	f.put(s, "star", set("a", "b"))
	f.put(s, "other", nil)
	s.Save()
	f.watches = nil
	status := s.Status()
	verify.Require(t, status.LastError == "" && !status.Written.IsZero(), "status %+v", status)
	return f
}

func TestSetsAreRestored(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	s := saved(t, at).open()
	state, ok := s.Get("star", source, "")
	verify.That(t, ok && state.Restored.Sub(at).Abs() <= time.Millisecond, "got %+v, %v; want it as of %v", state, ok, at)
	verify.DeepEqual(t, state.Set, set("a", "b"), "the set")
	state, ok = s.Get("other", source, "")
	verify.That(t, ok && state.Known && len(state.Set) == 0, "an empty set: %v, %v", state, ok)
	_, ok = s.Get("unknown", `consul service "unknown"`, "")
	verify.That(t, !ok, "an unknown service has a set")
	verify.Equal(t, len(s.Services()), 2, "services")
}

func TestSetOfAnotherSourceIsNotUsed(t *testing.T) {
	f := saved(t, time.Now())
	_, ok := f.open().Get("star", `consul service "star", datacenter "dc2"`, "")
	verify.That(t, !ok, "the set is used")
	verify.Contains(t, f.log.String(), `"wanted":"consul service`, "the log")
}

func TestOldSetIsNotUsed(t *testing.T) {
	f := saved(t, time.Now().Add(-25*time.Hour))
	f.maxAge = 24 * time.Hour
	_, ok := f.used(f.open())
	verify.That(t, !ok, "the set is used")
	verify.Contains(t, f.log.String(), `"age":`, "the log")
	f.maxAge = 26 * time.Hour
	_, ok = f.used(f.open())
	verify.That(t, ok, "the set is not used, but is recent")
}

// damages are kinds of damage to a file.
var damages = map[string]func([]byte) []byte{
	"empty":           func([]byte) []byte { return nil },
	"cut off":         func(b []byte) []byte { return b[:len(b)/2] },
	"a changed digit": func(b []byte) []byte { return bytes.Replace(b, []byte("8001"), []byte("8002"), 1) },
	"zeros at the end": func(b []byte) []byte {
		return append(b[:len(b)-100], make([]byte, 100)...)
	},
	"another version": func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":2`), []byte(`"version":3`), 1) },
	"no JSON":         func([]byte) []byte { return []byte("<html>") },
	"another JSON":    func([]byte) []byte { return []byte("[]") },
	"no checksum":     func([]byte) []byte { return []byte(`{"version":2,"services":{}}`) },
	"an invalid instance": func([]byte) []byte {
		b, _ := format(map[string]discovery.WatchState{"star": {Source: source, Set: []discovery.Instance{{ID: "a", Address: "x"}}}})
		return b
	},
}

func TestDamagedFileIsNotUsedAndRenamedByTheNextWrite(t *testing.T) {
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			f := saved(t, time.Now())
			spoilt := damage(verify.Result(os.ReadFile(f.path)).Must(t))
			verify.NoError(t, os.WriteFile(f.path, spoilt, 0o600))
			s := f.open()
			_, ok := f.used(s)
			verify.That(t, !ok, "its set is used")
			verify.Equal(t, strings.Count(f.log.String(), `"error":"the snapshot is damaged`), 1, "lines in the log %s", &f.log)
			verify.Contains(t, f.log.String(), f.path, "the log")

			// Sets without an answer of a registry are not written.
			f.watches = []discovery.WatchStatus{
				{Service: "static", Source: "static", State: discovery.WatchFresh, LastSuccess: time.Now()},
			}
			f.put(s, "static", set("s"))
			s.Save()
			got := verify.Result(os.ReadFile(f.path)).Must(t)
			verify.That(t, bytes.Equal(got, spoilt), "the file was touched: %q", got)

			f.watches = append(f.watches, answered("star", time.Now()))
			f.put(s, "star", set("c"))
			s.Save()
			got = verify.Result(os.ReadFile(f.path + ".damaged")).Must(t)
			verify.That(t, bytes.Equal(got, spoilt), "the damaged file was not kept: %q", got)
			again := f.open()
			good, _ := f.used(again)
			verify.DeepEqual(t, good, set("c"), "the good set")
			verify.Equal(t, len(again.Services()), 1, "services")
		})
	}
}

func TestUnconfirmedSetsKeepTheirTimes(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	f := saved(t, at)
	s := f.open()
	restored := answered("star", time.Time{})
	restored.Restored = at
	f.watches = []discovery.WatchStatus{restored, answered("other", time.Now())}
	f.put(s, "star", set("a", "b"))
	f.put(s, "other", set("o"))
	s.Save()
	again := f.open()
	got, ok := again.Get("star", source, "")
	verify.That(t, ok && got.Restored.Sub(at).Abs() <= time.Millisecond, "star is as of %v, %v; want %v", got.Restored, ok, at)
	got, ok = again.Get("other", source, "")
	verify.That(t, ok && got.Restored.Sub(at) >= time.Minute, "other is as of %v, %v; want now", got.Restored, ok)
}

func TestUnwatchedServiceIsRemoved(t *testing.T) {
	f := newFixture(t)
	f.watches = []discovery.WatchStatus{answered("star", time.Now()), answered("other", time.Now())}
	s := f.open()
	f.put(s, "star", set("a"))
	f.put(s, "other", set("o"))
	s.Save()
	f.watches = f.watches[:1]
	f.put(s, "star", set("b"))
	s.Save()
	got := f.open().Services()
	verify.That(t, len(got) == 1 && got[0] == "star", "services %v, want star", got)
}

// A set under another name is used for the same source only if that has the same addresses.
func TestSetOfAnotherRegistryIsNotUsed(t *testing.T) {
	f := newFixture(t)
	f.watches = []discovery.WatchStatus{answered("star", time.Now())}
	f.addresses = "a"
	s := f.open()
	f.put(s, "star", set("a"))
	s.Save()
	for _, test := range []struct {
		service, addresses string
		want               bool
	}{{"star", "a", true}, {"star", "a,b", true}, {"moon", "a", true}, {"moon", "b", false}} {
		_, ok := f.open().Get(test.service, source, test.addresses)
		verify.Equal(t, ok, test.want, "%s of %s", test.service, test.addresses)
	}
}

func TestFailedWriteKeepsTheFileAndIsReported(t *testing.T) {
	f := saved(t, time.Now())
	s := f.open()
	dir := filepath.Dir(f.path)
	verify.NoError(t, os.Rename(dir, dir+".away"))
	f.watches = []discovery.WatchStatus{answered("star", time.Now())}
	f.put(s, "star", set("c"))
	s.Save()
	s.Save()
	status := s.Status()
	verify.That(t, status.Errors == 2 && status.LastError != "", "status %+v", status)
	verify.Equal(t, strings.Count(f.log.String(), `"level":"error"`), 1, "errors in the log %s", &f.log)
	verify.NoError(t, os.Rename(dir+".away", dir))
	_, ok := f.used(f.open())
	verify.That(t, ok, "the old file is gone")
	s.Save()
	status = s.Status()
	verify.That(t, status.Errors == 2 && status.LastError == "" && !status.Written.IsZero(), "after it: %+v", status)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	verify.That(t, err == nil && len(left) == 1, "files %v, %v; want one", left, err)
}

func TestOpenRejectsInvalidPaths(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	verify.NoError(t, os.WriteFile(file, nil, 0o600))
	pipe := filepath.Join(dir, "pipe")
	verify.NoError(t, syscall.Mkfifo(pipe, 0o600)) // to open it would wait for a writer
	for path, want := range map[string]string{
		filepath.Join(dir, "missing", "snapshot.json"): "no such file",
		filepath.Join(file, "snapshot.json"):           "not a directory",
		dir:                                            "",
		pipe:                                           "not a regular file",
	} {
		_, err := Open(Options{Path: path, Log: zerolog.Nop()})
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%s: %v, want %q", path, err, want)
	}
}

func TestUnfinishedFilesAreRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	old, recent := path+".1.tmp", path+".2.tmp"
	for _, name := range []string{old, recent} {
		verify.NoError(t, os.WriteFile(name, []byte("half"), 0o600))
	}
	hourAgo := time.Now().Add(-time.Hour)
	verify.NoError(t, os.Chtimes(old, hourAgo, hourAgo))
	verify.NoError(t, Replace(path, nil))
	_, err := os.Stat(old)
	verify.That(t, err != nil, "the old one is still there")
	_, err = os.Stat(recent)
	verify.That(t, err == nil, "the recent one, perhaps of another process, is gone")
}

func TestRunWritesAfterABurstAndAtTheEnd(t *testing.T) {
	f := newFixture(t)
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := f.open()
		stop := parallel.Run(t, s.Run)
		written := func(at time.Duration) time.Duration {
			time.Sleep(time.Until(begin.Add(at)))
			synctest.Wait()
			if w := s.Status().Written; !w.IsZero() {
				return w.Sub(begin)
			}
			return -1
		}
		expect := func(at, want time.Duration) {
			t.Helper()
			verify.Equal(t, written(at), want, "after %v the last write was after", at)
		}
		f.watches = []discovery.WatchStatus{answered("star", time.Now())}
		expect(time.Minute, -1)
		f.put(s, "star", set("a"))
		expect(time.Minute+900*time.Millisecond, -1)
		f.put(s, "star", set("a", "b"))
		expect(time.Minute+1899*time.Millisecond, -1)
		expect(time.Minute+1900*time.Millisecond, time.Minute+1900*time.Millisecond)
		for n := range 400 { // 20 s of changes without a pause
			time.Sleep(50 * time.Millisecond)
			f.put(s, "star", set("a", "b", "c")[n%3:])
		}
		last := written(time.Since(begin))
		verify.That(t, last >= time.Minute+10*time.Second, "the last write was after %v", last)
		expect(3*time.Minute, written(3*time.Minute))
		last = written(13 * time.Minute)
		verify.That(t, last >= 4*time.Minute, "no write for ten minutes: the last was after %v", last)
		f.put(s, "star", set("z"))
		stop()
		got, _ := f.used(f.open())
		verify.DeepEqual(t, got, set("z"), "the set at the end")
	})
}

func FuzzParse(f *testing.F) {
	good := verify.Result(format(map[string]discovery.WatchState{
		"star": {Source: source, Set: set("a"), Restored: time.Unix(1, 0)},
	})).Must(f)
	f.Add(good)
	f.Add(good[:len(good)-5])
	f.Add([]byte(`{"version":2,"checksum":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","services":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parse(data)
		if err != nil {
			return
		}
		again := verify.Result(format(entries)).Must(t)
		twice := verify.Result(parse(again)).Must(t)
		verify.Equal(t, len(twice), len(entries), "entries read again")
	})
}
