package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
	"sluice/test/parallel"
	"sluice/test/verify"
)

// watched is a watch of a file in a bubble of synctest.
type watched struct {
	t       *testing.T
	path    string
	changes chan struct{} // of the file

	mu   sync.Mutex
	last discovery.Report
	set  []discovery.Instance // in use
}

func watchFile(t *testing.T, inUse []discovery.Instance, text string) *watched {
	w := &watched{t: t, path: filepath.Join(t.TempDir(), "peers"), changes: make(chan struct{}), set: inUse}
	w.write(text)
	parallel.Run(t, func(ctx context.Context) {
		err := NewSource("star", Options{Path: w.path, Watch: func(ctx context.Context, path string, changed func() error) {
			for {
				select {
				case <-w.changes:
					err := changed()
					w.mu.Lock()
					verify.That(t, ctx.Err() != nil || errors.Is(err, w.last.Err), "changed returned %v, and reported %v", err, w.last.Err)
					w.mu.Unlock()
				case <-ctx.Done():
					return
				}
			}
		}}).Run(ctx, discovery.WatchState{Known: inUse != nil, Set: inUse}, w.report)
		verify.That(t, errors.Is(err, context.Canceled), "Run returned %v", err)
	})
	return w
}

func (w *watched) report(r discovery.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = r
	if r.Known {
		w.set = r.Set
	}
}

func (w *watched) inUse() []discovery.Instance {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set
}

func (w *watched) write(text string) {
	w.t.Helper()
	verify.NoError(w.t, os.WriteFile(w.path, []byte(text), 0o600))
}

// change writes the file, and tells the source so.
func (w *watched) change(text string) {
	w.t.Helper()
	w.write(text)
	w.changes <- struct{}{}
}

// expect waits for the confirmation of a text and checks the set in use, and that the last error
// contains text.
func (w *watched) expect(want, failure string) {
	w.t.Helper()
	time.Sleep(2 * settleTime)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, i := range w.set {
		ids = append(ids, i.ID)
	}
	got := ""
	if w.last.Err != nil {
		got = w.last.Err.Error()
	}
	verify.Equal(w.t, strings.Join(ids, " "), want, "the set")
	verify.That(w.t, strings.Contains(got, failure) && (failure != "" || got == "") && strings.Count(got, w.path) <= 1,
		"the error is %q, want %q", got, failure)
}

func TestFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, nil, "a:80\nb:80")
		w.expect("a:80 b:80", "")
		w.change(`["a:80", "b:80", {"host": "c", "port": 80}]`)
		w.expect("a:80 b:80 c:80", "")
		for text, failure := range map[string]string{"": "empty", `["a:80", `: "not a valid JSON list", "a:80\nb": "line 2", strings.Repeat("#", maxBytes+1): "larger than 8388608 bytes"} {
			w.change(text)
			w.expect("a:80 b:80 c:80", failure)
			w.expect("a:80 b:80 c:80", w.path)
		}
		verify.NoError(t, os.Remove(w.path))
		w.changes <- struct{}{}
		w.expect("a:80 b:80 c:80", "no such file")
		// To open it would wait for a writer.
		verify.NoError(t, syscall.Mkfifo(w.path, 0o600))
		w.changes <- struct{}{}
		w.expect("a:80 b:80 c:80", "not a regular file")
		verify.NoError(t, os.Remove(w.path))
		w.change("a:80")
		w.expect("a:80", "")
		w.change("[]")
		w.expect("", "")
		w.change("d:80")
		w.expect("d:80", "")
	})
}

// A removal counts when the file has stayed the same for a while.
func TestFileThatIsBeingWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, nil, "a:80\nb:80\nc:80")
		w.expect("a:80 b:80 c:80", "")
		w.change("a:80")
		for _, text := range []string{"a:80\nb:80", "a:80\nb", "a:80\nb:80\nc:80"} {
			time.Sleep(settleTime / 2)
			synctest.Wait()
			set := w.inUse()
			verify.That(t, len(set) == 3, "the set is %v", set)
			w.write(text)
		}
		w.expect("a:80 b:80 c:80", "")
		w.change("a:80")
		time.Sleep(settleTime / 2)
		w.write("")
		w.expect("a:80 b:80 c:80", "empty")
	})
}

// The set of an earlier process stays in use until the file has another one.
func TestInheritedSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watchFile(t, []discovery.Instance{{Service: "star", ID: "a:80", Address: "a", Port: 80, Weight: 1}}, "")
		w.expect("a:80", "empty")
		w.change("b:80")
		synctest.Wait()
		set := w.inUse()
		verify.That(t, len(set) == 1 && set[0].ID == "a:80", "the set is %v", set)
		w.expect("b:80", "")
	})
}
