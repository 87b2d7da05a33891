package pages

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/test/verify"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	verify.Succeeds(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "503.html")
	write(t, path, "one")
	b := verify.Result(Open(path)).Must(t)
	verify.Equal(t, string(b.Bytes()), "one", "the body")
	changed, err := b.Refresh()
	verify.That(t, !changed && err == nil, "without a change: %v, %v", changed, err)
	write(t, path, "two")
	changed, err = b.Refresh()
	verify.That(t, changed && err == nil, "after a change: %v, %v", changed, err)
	verify.Equal(t, string(b.Bytes()), "two", "the body after a change")
}

func TestLastGoodBodyStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "503.html")
	write(t, path, "good")
	b := verify.Result(Open(path)).Must(t)
	for name, spoil := range map[string]func(){
		"empty":     func() { write(t, path, "") },
		"too large": func() { write(t, path, strings.Repeat("x", MaxBytes+1)) },
		"missing":   func() { verify.Succeeds(t, os.Remove(path)) },
	} {
		spoil()
		changed, err := b.Refresh()
		verify.That(t, !changed && err != nil, "%s: changed %v, %v", name, changed, err)
		verify.Equal(t, string(b.Bytes()), "good", "the body when the file is %s", name)
		_, err = Open(path)
		verify.That(t, err != nil, "a file that is %s is opened", name)
		write(t, path, "good")
	}
}

func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	verify.Succeeds(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{dir, pipe} {
		_, err := Open(path)
		verify.That(t, err != nil && strings.Contains(err.Error(), "not a regular file"), "%s: %v", path, err)
	}
}

func TestTextStays(t *testing.T) {
	b := Text("hello")
	changed, err := b.Refresh()
	verify.That(t, !changed && err == nil && string(b.Bytes()) == "hello", "%v, %v, %q", changed, err, b.Bytes())
}
