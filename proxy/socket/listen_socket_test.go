package socket

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sluice/test/verify"
)

// socketPath returns a path that is short enough for a unix socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir := verify.Result(os.MkdirTemp("", "sluice-")).Must(t)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// expectListener checks that somebody listens at path.
func expectListener(t *testing.T, path string) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	verify.NoError(t, err)
	conn.Close()
}

func TestSocketOfAnotherProcessStays(t *testing.T) {
	path := socketPath(t)
	first := verify.Result(ListenSocket(path)).Must(t)
	defer first.Close()
	l, err := ListenSocket(path)
	verify.That(t, err != nil && err.Error() == path+" is in use by another process", "got %v, %v", l, err)
	expectListener(t, path) // the first one
}

func TestSocketReplacesNoOtherFile(t *testing.T) {
	path := socketPath(t)
	for what, make := range map[string]func() error{
		"file":      func() error { return os.WriteFile(path, []byte("kept"), 0o600) },
		"directory": func() error { return os.Mkdir(path, 0o700) },
		"link":      func() error { return os.Symlink("/dev/null", path) },
	} {
		verify.NoError(t, make())
		_, err := ListenSocket(path)
		verify.That(t, err != nil && strings.Contains(err.Error(), "is not a socket: remove it"), "%s: %v", what, err)
		err = os.Remove(path)
		verify.That(t, err == nil, "%s: %v", what, err)
	}
}

// Of many that find an abandoned socket at the same time, exactly one gets the path.
func TestManyTakeAnAbandonedSocket(t *testing.T) {
	path := socketPath(t)
	for range 20 {
		var binding sync.WaitGroup
		got := make(chan net.Listener, 8)
		for range cap(got) {
			binding.Go(func() {
				if l, err := ListenSocket(path); err == nil {
					got <- l
				}
			})
		}
		binding.Wait()
		close(got)
		verify.Require(t, len(got) == 1, "%d have it", len(got))
		l := <-got
		verify.Equal(t, verify.Result(os.Stat(path)).Must(t).Mode(), os.ModeSocket|0o600, "the mode of the file")
		expectListener(t, path)
		l.Close()
		verify.Result(os.Lstat(path)).Must(t) // as after a crash
	}
}
