package acme

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/test/verify"
)

// absent fails the test if there is a file or directory.
func absent(t *testing.T, path string) {
	t.Helper()
	_, err := os.Stat(path)
	verify.That(t, errors.Is(err, fs.ErrNotExist), "%s is there: %v", path, err)
}

// A closed manager writes nothing, whatever certmagic's jobs do: the next one, or another
// process, has the directory.
func TestClosedManagerWritesNothing(t *testing.T) {
	var directories []string
	for range 20 {
		dir := filepath.Join(t.TempDir(), "storage")
		directories = append(directories, dir)
		m := newManager(t, Options{Storage: dir})
		verify.NoError(t, m.Manage([]string{"a.example", "b.example", "c.example"}))
		m.Close()
		verify.NoError(t, os.RemoveAll(dir))
		err := m.config.Storage.Store(t.Context(), "a", nil)
		verify.That(t, errors.Is(err, errClosed), "Store: %v", err)
		err = m.config.Storage.Lock(t.Context(), "a")
		verify.That(t, errors.Is(err, errClosed), "Lock: %v", err)
	}
	for _, dir := range directories {
		absent(t, dir)
	}
}

// An order that has begun to store its certificate does so as a whole, but a closed storage
// waits for no order that hangs, and for no lock of others.
func TestFilesEnd(t *testing.T) {
	for _, hangs := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			s, other := newFiles(dir, false, zerolog.Nop()), newFiles(dir, false, zerolog.Nop())
			verify.NoError(t, other.Lock(t.Context(), "other"))
			verify.NoError(t, s.Lock(t.Context(), "order"))
			verify.NoError(t, s.Store(t.Context(), "certificate", nil))
			waited := make(chan error, 1)
			go func() { waited <- s.Lock(t.Context(), "other") }()
			synctest.Wait()
			begin := time.Now()
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				s.close()
			}()
			synctest.Wait()
			err := <-waited
			verify.That(t, err != nil, "the lock of another is taken")
			select {
			case <-closed:
				t.Error("close does not wait for an order")
			default:
			}
			verify.NoError(t, s.Store(t.Context(), "key", nil))
			for name, lock := range map[string]func() (bool, error){
				"Lock": func() (bool, error) { return true, s.Lock(t.Context(), "late") }, "TryLock": func() (bool, error) { return s.TryLock(t.Context(), "late") },
			} {
				ok, err := lock()
				verify.That(t, errors.Is(err, errClosed) && (!ok || name != "TryLock"), "%s of a storage that ends: %v, %v", name, ok, err)
			}
			if !hangs {
				verify.NoError(t, s.Unlock(t.Context(), "order"))
			}
			<-closed
			took := time.Since(begin)
			verify.That(t, hangs == (took > 0) && took <= unlockTimeout, "hangs: %v: close took %v", hangs, took)
			err = s.Store(t.Context(), "late", nil)
			verify.That(t, errors.Is(err, errClosed), "Store: %v", err)
			if hangs {
				verify.NoError(t, s.Unlock(t.Context(), "order"))
			}
			verify.NoError(t, other.Unlock(t.Context(), "other"))
			other.close()
			time.Sleep(time.Minute) // certmagic ends what refreshes a lock
		})
		entries, err := os.ReadDir(filepath.Join(dir, "locks"))
		verify.That(t, err == nil && len(entries) <= 0, "locks %v, %v", entries, err)
		absent(t, filepath.Join(dir, "late"))
	}
}
