package live

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
	"sluice/test/verify"
)

// treeName is the name of the source of these tests.
const treeName = "consul_kv:sluice/"

// managed is a manager whose configurations change nothing: the test sees them, and makes the
// reports of its source.
type managed struct {
	*Manager
	t      *testing.T
	source reported
	other  reported // a source of another name
	wait   func()   // ends Run

	refuses atomic.Bool  // the configuration with the route /bad cannot be applied
	applied atomic.Int64 // calls of Apply and Again
	merges  atomic.Bool  // what Again returns
	panics  atomic.Bool  // Apply does
	during  func()       // is called in the next call of Apply; nil: nothing is

	mu    sync.Mutex // guards the field below
	inUse []string   // the paths of the routes in use
}

// reported is a source whose reports a test makes.
type reported chan Report

func (s reported) Run(ctx context.Context, report func(Report)) error {
	for {
		select {
		case r := <-s:
			report(r)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *managed) apply(_ context.Context, c *config.Config) (*config.Config, error) {
	if f := m.during; f != nil {
		m.during = nil
		f()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied.Add(1)
	if m.panics.Load() {
		panic("a fault")
	}
	var paths []string
	for _, r := range c.Routes {
		if r.Path == "/bad" && m.refuses.Load() {
			return nil, errors.New("a file is missing")
		}
		paths = append(paths, r.Path)
	}
	m.inUse = paths
	return c, nil
}

// say reports a tree with one document, which has a route, and waits until nothing happens.
func (m *managed) say(path string) {
	m.source <- Report{Said: config.Source{Name: treeName, Kind: config.KindConsulKV, Revision: path, Documents: []config.Document{
		{Name: "consul_kv:sluice/a.yaml", Text: fmt.Sprintf("routes: [{ path: %s, service: s }]", path)},
	}}}
	synctest.Wait()
}

// serves fails if other routes are in use.
func (m *managed) serves(when string, want ...string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	verify.Slices(m.t, m.inUse, want, "%s: the routes", when)
}

// state returns the status of the tree, in a word.
func (m *managed) state() string {
	for _, s := range m.Statuses() {
		switch {
		case s.Source.Name != treeName:
		case s.Refused != nil:
			return "refused"
		case s.Stale != nil:
			return "stale"
		case s.Source.Pin != nil:
			return "pinned"
		default:
			return "in use"
		}
	}
	return "unused"
}

// manage runs a manager of a file in dir, until the test ends, with a retry every 5 seconds.
func manage(t *testing.T, dir string) *managed {
	t.Helper()
	return manageFile(t, dir, filepath.Join(dir, "history"), "/file")
}

// manageFile is manage with a history, and a path of the route of the file.
func manageFile(t *testing.T, dir, history, path string) *managed {
	t.Helper()
	file := filepath.Join(dir, "sluice.yaml")
	text := fmt.Sprintf("config: { history: %q }\ndynamic: [{ consul_kv: { prefix: sluice/ } }]\nservices: { s: { peers: ['127.0.0.1:1'] } }\nroutes: [{ path: %s, service: s }]", history, path)
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	documents := verify.Result(Load(config.Input{File: file})).Must(t)
	m := &managed{Manager: documents, t: t, source: make(reported), other: make(reported)}
	m.merges.Store(true)
	m.Connect(Options{
		NewSource: func(y config.Dynamic, _ config.Source) Source {
			if y.Name() == treeName {
				return m.source
			}
			return m.other
		},
		Apply: m.apply,
		Again: func(ctx context.Context, c *config.Config) bool {
			_, err := m.apply(ctx, c)
			return err == nil && m.merges.Load()
		},
		Applied: func(config.Revision) {}, Settled: func() {}, Reload: func() func() { return func() {} },
		Order:  func(f func() error) error { return f() },
		Events: events.New(), Log: zerolog.Nop(),
	})
	m.History().SetOwned(true)
	_, err := m.apply(t.Context(), m.First())
	verify.NoError(t, err)
	m.Begin(false)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		panics.Repeat(ctx.Done(), panics.Task, time.Second, func() { m.Run(ctx, time.Second, 5*time.Second) })
	}()
	m.wait = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(m.wait)
	synctest.Wait()
	return m
}

// managing runs a test of a manager in virtual time.
func managing(t *testing.T, test func(t *testing.T, m *managed)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, dir)
		defer m.wait()
		test(t, m)
	})
}

// pass lets time pass.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// edit replaces texts of the file by others, and reloads it.
func (m *managed) edit(pairs ...string) {
	text := strings.NewReplacer(pairs...).Replace(verify.Result(m.input.Read()).Must(m.t))
	verify.NoError(m.t, os.WriteFile(m.input.File, []byte(text), 0o600))
	m.Reload()
	synctest.Wait()
}

// What is refused is tried again, and the documents in use stay until then: what cannot be applied,
// and what cannot be built, as a directory is missing.
func TestWhatIsRefusedIsTriedAgain(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		m.say("/a")
		m.serves("the first documents", "/file", "/a")
		m.refuses.Store(true)
		m.say("/bad")
		m.serves("what cannot be applied", "/file", "/a")
		verify.Equal(t, m.state(), "refused", "it")
		pass(6 * time.Second)
		m.serves("still not", "/file", "/a")
		m.refuses.Store(false)
		pass(5 * time.Second)
		m.serves("it can be applied", "/file", "/bad")
		verify.Equal(t, m.state(), "in use", "it")
		missing := filepath.Join(filepath.Dir(m.input.File), "copies")
		m.edit("dynamic:", fmt.Sprintf("consul: { certificates_dir: %q }\ndynamic:", missing))
		verify.That(t, m.Refuses(), "a file that names a missing directory is not refused")
		verify.NoError(t, os.Mkdir(missing, 0o700))
		pass(5 * time.Second)
		verify.That(t, !m.Refuses(), "it is refused, now that the directory is there")
		applied := m.applied.Load()
		pass(time.Minute)
		verify.Equal(t, m.applied.Load(), applied, "times that it is applied")
	})
}

// A reload that could not read the file is tried again: the watcher may have read it all the time.
func TestAFileThatCannotBeReadIsTriedAgain(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		m.say("/a")
		aside := m.input.File + ".aside"
		verify.NoError(t, os.Rename(m.input.File, aside))
		m.Reload()
		synctest.Wait()
		verify.That(t, m.Refuses(), "a file that is not there is not refused")
		text := strings.Replace(string(verify.Result(os.ReadFile(aside)).Must(t)), "/file", "/changed", 1)
		verify.NoError(t, os.WriteFile(m.input.File, []byte(text), 0o600))
		pass(5 * time.Second)
		m.serves("the file can be read", "/changed", "/a")
		verify.That(t, !m.Refuses(), "it is refused")
	})
}

// A rollback that panics is an error, and the configuration before stays in use.
func TestARollBackPanics(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	defer panics.Observe(func(panics.Contained) {})()
	managing(t, func(t *testing.T, m *managed) {
		m.say("/a")
		first := m.History().Current()
		m.say("/b")
		present := m.History().Current()
		m.panics.Store(true)
		_, err := m.RollBack(t.Context(), first.Number, present.Hash, "")
		verify.That(t, errors.Is(err, panics.Err), "the rollback: %v", err)
		m.panics.Store(false)
		pass(time.Second) // until the manager goes on
		m.serves("after the panic", "/file", "/b")
		verify.Equal(t, m.History().Current().Number, present.Number, "the revision")
		_, err = m.RollBack(t.Context(), first.Number, present.Hash, "")
		verify.NoError(t, err)
		m.serves("after another rollback", "/file", "/a")
	})
}

// A rollback holds until the source says something else that can be used, also in the next process.
func TestRollBackHolds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, dir)
		m.say("/a")
		first := m.History().Current()
		m.say("/b")
		rollBack := func(number uint64, match string) error {
			_, err := m.RollBack(t.Context(), number, match, "")
			return err
		}
		err := rollBack(first.Number, first.Hash)
		verify.That(t, errors.Is(err, ErrChanged), "with the hash of another revision: %v", err)
		err = rollBack(99, m.History().Current().Hash)
		verify.That(t, errors.Is(err, ErrNoRevision), "to no revision: %v", err)
		verify.NoError(t, rollBack(first.Number, m.History().Current().Hash))
		m.serves("after the rollback", "/file", "/a")
		m.say("/b")
		m.serves("what it said before", "/file", "/a")
		m.say("nonsense: [")
		m.serves("nonsense", "/file", "/a")
		m.wait()
		err = rollBack(first.Number, first.Hash)
		verify.That(t, errors.Is(err, ErrEnded), "after the end: %v", err)
		m = manage(t, dir)
		defer m.wait()
		m.serves("the next process", "/file", "/a")
		m.say("/b")
		verify.Equal(t, m.state(), "pinned", "in the next process it")
		m.say("/c")
		m.serves("something else", "/file", "/c")
		verify.Equal(t, m.History().Current().Reason, "pin released: "+treeName, "the reason")
	})
}

// A rollback during an outage is against what the source said last, also in the next process:
// something new ends the pin. One to before the first answer of a source says nothing about it.
func TestRollBackOfASourceThatIsAway(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, dir)
		begin := m.History().Current()
		m.say("/a")
		first := m.History().Current()
		m.say("/b")
		rollBackWhileAway := func(serves string) {
			m.wait()
			m = manage(t, dir)
			m.serves("without an answer", "/file", serves)
			verify.Result(m.RollBack(t.Context(), first.Number, m.History().Current().Hash, "")).Must(t)
			m.serves("after the rollback", "/file", "/a")
		}
		rollBackWhileAway("/b")
		m.wait()
		m = manage(t, dir)
		m.serves("the next process", "/file", "/a")
		m.say("/b")
		m.serves("what it said last", "/file", "/a")
		m.say("/c")
		m.serves("something else", "/file", "/c")
		rollBackWhileAway("/c")
		defer func() { m.wait() }()
		m.say("/d")
		m.serves("something else at once", "/file", "/d")
		r := verify.Result(m.RollBack(t.Context(), begin.Number, m.History().Current().Hash, "")).Must(t)
		verify.Contains(t, r.Reason, "not known then, so it stays: "+treeName, "the reason")
		m.serves("to before the first answer", "/file", "/d")
	})
}

// Neither the documents of the history nor a rollback depend on where the configuration file is.
func TestTheFileMoves(t *testing.T) {
	history, dirs := filepath.Join(t.TempDir(), "history"), []string{t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()}
	synctest.Test(t, func(t *testing.T) {
		m := manageFile(t, dirs[0], history, "/one")
		m.say("/a")
		first := m.History().Current()
		m.wait()
		m = manageFile(t, dirs[1], history, "/two")
		m.serves("in another directory", "/two", "/a")
		verify.Result(m.RollBack(t.Context(), first.Number, m.History().Current().Hash, "")).Must(t)
		m.serves("after the rollback", "/one", "/a")
		m.wait()
		m = manageFile(t, dirs[2], history, "/two")
		m.serves("in a third directory", "/one", "/a")
		file := m.History().Current().Sources[0]
		verify.That(t, file.Name == filepath.Join(dirs[2], "sluice.yaml") && file.Pin != nil && file.Pin.Number == first.Number, "the file %+v", file)
		m.wait()
		m = manageFile(t, dirs[3], history, "/three")
		defer m.wait()
		m.serves("another text", "/three", "/a")
	})
}

// What others add is applied with the documents in use, again and again until it can be.
func TestAgainUntilItSucceeds(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		verify.That(t, !wake.Closed(m.Settled()), "settled before the source has answered")
		missing := m.Missing()
		verify.That(t, len(missing) == 1 && strings.Contains(missing[0], treeName), "missing: %q", missing)
		m.say("/a")
		verify.That(t, wake.Closed(m.Settled()) && len(m.Missing()) <= 0, "not settled")
		before, number := m.applied.Load(), m.History().Current().Number
		m.merges.Store(false)
		m.Reapply()
		pass(11 * time.Second)
		verify.Equal(t, m.applied.Load()-before, 3, "times applied")
		m.merges.Store(true)
		pass(time.Minute)
		verify.Equal(t, m.applied.Load()-before, 4, "times applied")
		verify.Equal(t, m.History().Current().Number, number, "revision: the documents have not changed")
	})
}

// While another process follows the sources, nothing is applied and nothing recorded.
func TestPause(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		m.say("/a")
		number := m.History().Current().Number
		m.Pause()
		m.edit("/file", "/changed")
		m.serves("a reload", "/file", "/a")
		verify.Equal(t, m.History().Current().Number, number, "revision")
		m.Resume()
		synctest.Wait()
		m.serves("afterwards", "/changed", "/a")
	})
}

// What was being applied when another process began to follow the sources is in use, also when
// others add to it, although only the history of later has it.
func TestAPauseWhileAConfigurationIsApplied(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		m.say("/a")
		number := m.History().Current().Number
		m.during = m.Pause
		m.say("/b")
		m.serves("applied in the pause", "/file", "/b")
		m.Reapply()
		synctest.Wait()
		m.serves("with what others add", "/file", "/b")
		verify.Equal(t, m.History().Current().Number, number, "revision in the pause")
		m.Resume()
		synctest.Wait()
		m.serves("afterwards", "/file", "/b")
		verify.Equal(t, m.History().Current().Number, number+1, "revision afterwards")
	})
}

// A file that was changed while another process followed the sources comes into use with what its
// new source says, not before: its routes may have moved there.
func TestANewSourceInAPause(t *testing.T) {
	moved := func(m *managed) { m.edit("prefix: sluice/", "prefix: other/", "path: /file, ", "path: /changed, ") }
	for name, pause := range map[string]func(*managed){
		"before the reload": func(m *managed) { m.Pause(); moved(m) },
		"during the reload": func(m *managed) { moved(m); m.Pause() },
	} {
		t.Run(name, func(t *testing.T) {
			managing(t, func(t *testing.T, m *managed) {
				m.say("/a")
				pause(m)
				pass(2 * time.Second) // longer than a reload waits
				m.serves("in the pause", "/file", "/a")
				m.Resume()
				synctest.Wait()
				m.serves("until the new source has answered", "/file", "/a")
				m.other <- Report{Said: config.Source{Name: "consul_kv:other/", Kind: config.KindConsulKV, Revision: "1", Documents: []config.Document{
					{Name: "consul_kv:other/a.yaml", Text: "routes: [{ path: /other, service: s }]"},
				}}}
				synctest.Wait()
				m.serves("with the new source", "/changed", "/other")
			})
		})
	}
}

// A rollback depends only on what it restores: not on a source that was never used, whose refusal
// stands.
func TestRollBackBesideARefusedSource(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		first := m.History().Current()
		m.say("nonsense: [")
		m.edit("/file", "/changed")
		m.serves("the file changes", "/changed")
		verify.Equal(t, m.state(), "refused", "the tree")
		before := m.Statuses()
		verify.Result(m.RollBack(t.Context(), first.Number, m.History().Current().Hash, "")).Must(t)
		m.serves("after the rollback", "/file")
		verify.Equal(t, m.state(), "refused", "after the rollback, the tree")
		after := m.Statuses()
		verify.Equal(t, after[len(after)-1].Refused.Time, before[len(before)-1].Refused.Time, "the time of its refusal")
		verify.That(t, m.Refuses(), "nothing is refused")
		m.say("/a")
		m.serves("the tree can be used", "/file", "/a")
		verify.That(t, !m.Refuses(), "it is refused")

		// What the rollback restores is not refused any more: nobody asks for the other documents.
		with := m.History().Current()
		m.say("nonsense: [")
		verify.Equal(t, m.state(), "refused", "the tree")
		verify.Result(m.RollBack(t.Context(), with.Number, with.Hash, "")).Must(t)
		verify.Equal(t, m.state(), "pinned", "the tree")
		verify.That(t, !m.Refuses(), "what is pinned is refused")
	})
}
