package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"sluice/test/verify"
)

// watching runs w until the test ends, which mostly waits and so runs beside others. The channel
// receives a value for each change.
func watching(t *testing.T, w *Watcher) <-chan struct{} {
	t.Helper()
	t.Parallel()
	changes := make(chan struct{}, 100)
	w.Changed = func() { changes <- struct{}{} }
	w.Problem = func(err error) { t.Logf("problem: %v", err) }
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { cancel(); done.Wait() })
	return changes
}

func expectChange(t *testing.T, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(30 * time.Second):
		t.Fatal("no change detected")
	}
}

func expectNone(t *testing.T, changes <-chan struct{}, within time.Duration) {
	t.Helper()
	select {
	case <-changes:
		t.Fatal("a change was detected, want none")
	case <-time.After(within):
	}
}

// write replaces the text of the file in place with one of the same length. A reader never
// sees an empty file.
func write(t *testing.T, file, text string) {
	t.Helper()
	f := verify.Result(os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o600)).Must(t)
	_, err := f.WriteString(text)
	verify.NoError(t, errors.Join(err, f.Close()))
}

// rename replaces the file with another one.
func rename(t *testing.T, file, text string) {
	t.Helper()
	write(t, file+".new", text)
	verify.NoError(t, os.Rename(file+".new", file))
}

// quick returns a Watcher that depends on notifications: it polls once an hour.
func quick(file, text string) *Watcher {
	return &Watcher{File: file, Hash: hashOf([]byte(text)), settle: 20 * time.Millisecond, settleMax: 200 * time.Millisecond, poll: time.Hour}
}

func TestWatchSeesEditsOfEveryKind(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	write(t, file, "a")
	changes := watching(t, quick(file, "a"))

	write(t, file, "b") // in place
	expectChange(t, changes)

	rename(t, file, "c")
	expectChange(t, changes)

	verify.NoError(t, os.Remove(file)) // deleted and created again
	expectChange(t, changes)
	rename(t, file, "d")
	expectChange(t, changes)

	verify.NoError(t, os.Chmod(file, 0o640)) // none of these changes the text
	write(t, file, "d")
	write(t, filepath.Join(dir, "other"), "x")
	expectNone(t, changes, 300*time.Millisecond)
}

func TestWatchSeesChangeBeforeItsStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	write(t, file, "b")
	expectChange(t, watching(t, quick(file, "a")))
}

// A mounted ConfigMap: the file is a link through "..data", which is a link to a directory
// and is replaced with a link to another one.
func TestWatchSeesKubernetesSwap(t *testing.T) {
	dir := t.TempDir()
	version := func(name, text string) {
		verify.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "sluice.yaml"), text)
		verify.NoError(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		verify.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	version("..v1", "a")
	file := filepath.Join(dir, "sluice.yaml")
	verify.NoError(t, os.Symlink("..data/sluice.yaml", file))
	changes := watching(t, quick(file, "a"))
	expectNone(t, changes, 100*time.Millisecond)
	version("..v2", "b")
	verify.NoError(t, os.RemoveAll(filepath.Join(dir, "..v1")))
	expectChange(t, changes)
	version("..v3", "c")
	verify.NoError(t, os.RemoveAll(filepath.Join(dir, "..v2")))
	expectChange(t, changes)
	expectNone(t, changes, 100*time.Millisecond)
}

// The file may be read between two looks, and changed back, again and again. What was read then
// differs from the file.
func TestWatchComparesWithWhatWasReadLast(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	write(t, file, "a")
	synctest.Test(t, func(t *testing.T) {
		type reading struct {
			hash   string
			number uint64
		}
		var last atomic.Pointer[reading]
		var changes atomic.Int64
		readOthers := func(hash string) { last.Store(&reading{hash, last.Load().number + 1}) }
		last.Store(&reading{hashOf([]byte("a")), 1})
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		defer done.Wait()
		defer cancel()
		w := &Watcher{
			File: file, Seen: func() (string, uint64) { return last.Load().hash, last.Load().number }, Changed: func() { changes.Add(1) },
			notify: func() (*fsnotify.Watcher, error) { return nil, errors.New("no notifications") },
		}
		w.settle, w.settleMax, w.poll = settleTime, settleTimeMax, pollInterval
		done.Go(func() { w.Run(ctx) })
		pass := func(what string, want int64) {
			t.Helper()
			time.Sleep(pollInterval)
			synctest.Wait()
			verify.Equal(t, changes.Load(), want, "changes, %s", what)
		}
		pass("of nothing", 0)
		for n := range int64(3) {
			readOthers([]string{hashOf([]byte("b")), "too many open files"}[n%2])
			pass("that nobody has read", n+1)
			pass("that nobody reads", n+1)
			readOthers(hashOf([]byte("a"))) // and so soon before the next that no look comes between
		}
		pass("that was read", 3)
	})
}

func TestWatchFollowsLinkIntoOtherDirectory(t *testing.T) {
	one, two, dir := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(one, "f"), "a")
	write(t, filepath.Join(two, "f"), "b")
	file := filepath.Join(dir, "sluice.yaml")
	link := func(target string) {
		verify.NoError(t, os.Symlink(filepath.Join(target, "f"), file+"~"))
		verify.NoError(t, os.Rename(file+"~", file))
	}
	link(one)
	changes := watching(t, quick(file, "a"))
	expectNone(t, changes, 100*time.Millisecond)
	write(t, filepath.Join(one, "f"), "c")
	expectChange(t, changes)
	link(two)
	expectChange(t, changes)
	write(t, filepath.Join(two, "f"), "d")
	expectChange(t, changes)
}

func TestWatchReadsFileInBusyDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	write(t, file, "a")
	w := quick(file, "a")
	w.settle = time.Hour // never without events for so long
	changes := watching(t, w)
	stop := make(chan struct{})
	var done sync.WaitGroup
	defer done.Wait()
	defer close(stop)
	done.Go(func() {
		for ticker := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-stop:
				return
			case <-ticker.C:
				_ = os.WriteFile(filepath.Join(dir, "log"), nil, 0o600)
			}
		}
	})
	write(t, file, "b")
	expectChange(t, changes)
}

// The directory is renamed away and made anew: what was watched is the old one.
func TestWatchSeesReplacedDirectory(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "etc")
	verify.NoError(t, os.Mkdir(dir, 0o700))
	file := filepath.Join(dir, "sluice.yaml")
	write(t, file, "a")
	w := quick(file, "a")
	w.poll = 50 * time.Millisecond
	changes := watching(t, w)
	expectNone(t, changes, 100*time.Millisecond)
	verify.NoError(t, os.Rename(dir, dir+".old"))
	verify.NoError(t, os.Mkdir(dir, 0o700))
	rename(t, file, "b")
	expectChange(t, changes)
}

// What keeps a watcher from notifications is told once, until there are some again.
func TestWatchTellsOnceThatTheDirectoryIsMissing(t *testing.T) {
	directory := filepath.Join(t.TempDir(), "missing")
	w := quick(filepath.Join(directory, "sluice.yaml"), "")
	w.poll = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	reads, told := make(chan struct{}), 0
	w.Seen = func() (string, uint64) {
		select {
		case reads <- struct{}{}:
		case <-ctx.Done():
		}
		return "", 0
	}
	w.Changed, w.Problem = func() {}, func(error) { told++ }
	var done sync.WaitGroup
	done.Go(func() { w.Run(ctx) })
	read := func() {
		for range 20 {
			<-reads
		}
	}
	read()
	verify.NoError(t, os.Mkdir(directory, 0o700))
	read()
	verify.NoError(t, os.Remove(directory))
	read()
	cancel()
	done.Wait()
	verify.Equal(t, told, 2, "problems told")
}
