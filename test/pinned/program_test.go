package pinned

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sluice/test/verify"
)

func TestVersionIsTheOneThatGoModRequires(t *testing.T) {
	dir := t.TempDir()
	text := "module small\n\ntool example.com/tool/cmd\n\nrequire (\n\texample.com/tool/api v0.9.0\n\texample.com/tool v1.2.3 // indirect\n)\n\nrequire example.com/single v3.0.0+incompatible\n"
	verify.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o600))
	for module, want := range map[string]string{"example.com/tool": "v1.2.3", "example.com/single": "v3.0.0+incompatible"} {
		if got, err := versionIn(dir, module); err != nil || got != want {
			t.Errorf("version of %s = %q, %v; want %q", module, got, err, want)
		}
	}
	if got, err := versionIn(dir, "example.com/other"); err == nil {
		t.Errorf("version of a module that is not required = %q", got)
	}
}

func TestNestedModuleThatIsNotThere(t *testing.T) {
	_, err := Program{Title: "Nothing", Dir: "no/such/module"}.Version(t.Context())
	verify.That(t, err != nil && strings.Contains(err.Error(), "Nothing"), "error %v does not say what is missing", err)
}

// smallBuild is a module that builds in a second.
func smallBuild(t *testing.T, source string) build {
	t.Helper()
	module := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module small\n\ngo 1.26\n", "main.go": source} {
		verify.NoError(t, os.WriteFile(filepath.Join(module, name), []byte(text), 0o600))
	}
	return build{module: module, program: "small", title: "Small", target: filepath.Join(t.TempDir(), "cache", "small")}
}

func TestBuildOnceBuildsOnce(t *testing.T) {
	b := smallBuild(t, "package main\n\nfunc main() { println(\"small\") }\n")
	var built, waited int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			var progress bytes.Buffer
			path, err := buildOnce(t.Context(), &progress, b)
			verify.That(t, err == nil && path == b.target, "buildOnce = %q, %v", path, err)
			if out, err := exec.Command(path).CombinedOutput(); err != nil || string(out) != "small\n" {
				t.Errorf("the program prints %q, %v", out, err)
			}
			mu.Lock()
			defer mu.Unlock()
			built += strings.Count(progress.String(), "built Small in")
			waited += strings.Count(progress.String(), "waiting for another process")
		})
	}
	all.Wait()
	verify.That(t, built == 1 && waited <= 3, "built %d times, %d waited; want one build", built, waited)
}

func TestBuildErrorIsToldAndLeavesNothing(t *testing.T) {
	b := smallBuild(t, "package main\n\nfunc main() { undefinedName() }\n")
	_, err := buildOnce(t.Context(), new(bytes.Buffer), b)
	verify.That(t, err != nil && strings.Contains(err.Error(), "undefined: undefinedName"), "error %v, want the compiler's", err)
	left, _ := filepath.Glob(filepath.Dir(b.target) + "/*")
	verify.That(t, len(left) == 1 && filepath.Ext(left[0]) == ".lock", "remaining files: %v, want only the lock file", left)
}
