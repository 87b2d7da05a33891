//go:build unix

package accesslog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sluice/test/verify"
)

// A configuration whose access log is a named pipe that nobody reads is refused: to wait for a
// reader would hold up the reload.
func TestNamedPipeWithoutAReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	verify.NoError(t, syscall.Mkfifo(path, 0o600))
	_, err := New(Options{Path: path})
	verify.Require(t, errors.Is(err, syscall.ENXIO), "got error %v", err)

	reads := verify.Result(os.OpenFile(path, os.O_RDWR, 0)).Must(t)
	defer reads.Close()
	l := verify.Result(New(Options{Path: path, Format: formatOf("combined"), Sample: 1})).Must(t)
	for n := range 2000 { // more than the pipe has room for
		l.Log(0, numbered(n))
	}
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	var text strings.Builder
	for part := make([]byte, 4096); strings.Count(text.String(), "\n") < 2000; {
		n, err := reads.Read(part)
		verify.NoError(t, err)
		text.Write(part[:n])
	}
	verify.NoError(t, <-closed)
	got := numbers(t, strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n"))
	verify.That(t, len(got) == 2000 && slices.IsSorted(got), "got %d lines, in order: %v", len(got), slices.IsSorted(got))
}
