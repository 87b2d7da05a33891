package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/test/verify"
)

func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	verify.NoError(t, os.WriteFile(file, []byte("text"), 0o600))
	verify.NoError(t, os.Symlink("file", link))
	verify.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{file, link} {
		text, err := ReadFile(path)
		verify.That(t, err == nil && string(text) == "text", "%s: %q, %v", path, text, err)
	}
	for _, path := range []string{dir, pipe} {
		_, err := ReadFile(path)
		verify.That(t, err != nil && strings.HasSuffix(err.Error(), path+": not a regular file"), "%s: %v", path, err)
	}
	_, err := ReadFile(filepath.Join(dir, "missing"))
	verify.That(t, errors.Is(err, fs.ErrNotExist), "missing: %v", err)
}
