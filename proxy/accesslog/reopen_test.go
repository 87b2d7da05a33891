package accesslog

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"sluice/test/verify"
)

func TestReopenFollowsARenamedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := verify.Result(New(Options{Path: path, Format: formatOf("combined"), Sample: 1})).Must(t)
	defer l.Close()
	l.Log(0, numbered(1))
	verify.NoError(t, os.Rename(path, path+".1"))
	l.Log(0, numbered(2))
	verify.NoError(t, l.Reopen())
	l.Log(0, numbered(3))
	verify.NoError(t, l.Close())
	for name, want := range map[string][]int{path + ".1": {1, 2}, path: {3}} {
		verify.Slices(t, numbers(t, fileLines(t, name)), want, "lines of %s", filepath.Base(name))
	}
	err := l.Reopen()
	verify.That(t, err != nil, "Reopen after Close: no error")
}

// A line that was cut short, as the disk was full, ends with its file: the next file begins with a
// line, and in the same one a line begins, also of another log.
func TestNoLineIsGluedToATornOne(t *testing.T) {
	for name, open := range map[string]func(path string) (*Logger, error){
		"rotated": func(path string) (*Logger, error) {
			full := &fakeFile{limit: 4, err: syscall.ENOSPC}
			l := start(combinedOptions, &output{path: path, file: full})
			l.Log(0, numbered(1))
			return l, l.Reopen()
		},
		"the same file": func(path string) (*Logger, error) {
			l := verify.Result(New(Options{Path: path, Format: combinedOptions.Format, Sample: 1})).Must(t)
			verify.NoError(t, os.WriteFile(path, []byte("torn"), 0o600))
			return l, l.Reopen()
		},
		"another log": func(path string) (*Logger, error) {
			verify.NoError(t, os.WriteFile(path, []byte("torn"), 0o600))
			return New(Options{Path: path, Format: combinedOptions.Format, Sample: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "access.log")
			l := verify.Result(open(path)).Must(t)
			l.Log(0, numbered(2))
			verify.NoError(t, l.Close())
			lines := slices.DeleteFunc(fileLines(t, path), func(line string) bool { return line == "torn" })
			verify.That(t, len(lines) == 1 && strings.HasPrefix(lines[0], "c "), "got the lines %q", lines)
		})
	}
}

func TestReopenKeepsTheFileIfTheNewOneCannotBeOpened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	verify.NoError(t, os.Mkdir(dir, 0o755))
	l := verify.Result(New(Options{Path: filepath.Join(dir, "access.log"), Format: formatOf("combined"), Sample: 1})).Must(t)
	moved := dir + ".moved"
	verify.NoError(t, os.Rename(dir, moved))
	err := l.Reopen()
	verify.Require(t, errors.Is(err, os.ErrNotExist), "got error %v", err)
	l.Log(0, numbered(1))
	verify.NoError(t, l.Close())
	verify.Slices(t, numbers(t, fileLines(t, filepath.Join(moved, "access.log"))), []int{1}, "got lines")
}

func fileLines(t *testing.T, name string) []string {
	t.Helper()
	data := verify.Result(os.ReadFile(name)).Must(t)
	return (&fakeFile{data: data}).lines()
}

func TestStreamsStayOpen(t *testing.T) {
	for _, path := range []string{"stdout", "stderr"} {
		l := verify.Result(New(Options{Path: path})).Must(t)
		verify.NoError(t, errors.Join(l.Reopen(), l.Close()))
	}
	_, err := os.Stdout.Stat()
	verify.That(t, err == nil, "stdout: %v", err)
}

// Many goroutines on the same and on other shards, a reopening and a closing
// one: for the race detector, and no line may be lost or torn.
func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := verify.Result(New(Options{Path: path, Format: formatOf("combined"), Sample: 1})).Must(t)
	const goroutines, each = 8, 500
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				l.Log(uint32(g/2), numbered(i))
			}
		})
	}
	for range 5 {
		verify.Succeeds(t, l.Reopen())
	}
	wg.Wait()
	verify.NoError(t, l.Close())
	written := uint64(len(numbers(t, fileLines(t, path))))
	verify.Equal(t, written+l.Dropped(), goroutines*each, "lines written and dropped")
}

// Whoever has a log whose place another one takes loses no line.
func TestCloseForASuccessor(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *Logger {
		return verify.Result(New(Options{Path: filepath.Join(dir, name), Format: formatOf("combined"), Sample: 1})).Must(t)
	}
	old, next := open("old"), open("next")
	const lines = 1000
	var logging sync.WaitGroup
	half := make(chan struct{})
	logging.Go(func() {
		for n := range lines {
			if n == lines/2 {
				close(half)
			}
			old.Log(0, numbered(n))
		}
	})
	<-half
	verify.NoError(t, old.CloseFor(next))
	logging.Wait()
	old.Log(0, numbered(lines))
	verify.NoError(t, next.Close())
	got := append(numbers(t, fileLines(t, filepath.Join(dir, "old"))), numbers(t, fileLines(t, filepath.Join(dir, "next")))...)
	verify.That(t, len(got) == lines+1 && slices.IsSorted(got) && next.Dropped() == 0, "%d lines, sorted %v, %d dropped; want %d", len(got), slices.IsSorted(got), next.Dropped(), lines+1)
}
