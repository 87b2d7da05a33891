package sluicetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sluice/test/verify"
)

// A program is linked again when its source has changed, and only then. One that was built before
// stays as it is.
func TestBuildKeepsWhatHasNotChanged(t *testing.T) {
	module, kept := t.TempDir(), t.TempDir()
	t.Chdir(module)
	t.Setenv("GOFLAGS", "-buildvcs=false")
	write := func(name, text string) {
		verify.NoError(t, os.WriteFile(filepath.Join(module, name), []byte(text), 0o600))
	}
	write("go.mod", "module small\n\ngo 1.26\n")
	built := func() (program string, file os.FileInfo) {
		dir := t.TempDir()
		verify.NoError(t, build(t.Context(), kept, dir, "small"))
		return filepath.Join(dir, "small"), verify.Result(os.Stat(filepath.Join(kept, "small"))).Must(t)
	}
	says := func(program, want string) {
		t.Helper()
		out, err := exec.Command(program).CombinedOutput()
		verify.That(t, err == nil && string(out) == want, "%q, %v; want %q", out, err, want)
	}
	write("main.go", "package main\n\nfunc main() { print(\"one\") }\n")
	first, file := built()
	again, same := built()
	verify.That(t, os.SameFile(file, same), "it was linked again without a change")
	write("main.go", "package main\n\nfunc main() { print(\"two\") }\n")
	second, _ := built()
	says(first, "one")
	says(again, "one")
	says(second, "two")

	copied := filepath.Join(t.TempDir(), "copied")
	verify.NoError(t, duplicate(second, copied))
	says(copied, "two")
}
