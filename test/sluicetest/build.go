package sluicetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Build compiles packages of this module, such as "sluice" or "sluice/examples/goapp", into dir.
// The programs are stripped, as a release is, which halves the work of the linker, and kept in the
// user's cache directory, in which processes take turns: a program is linked again only when
// something about it has changed.
func Build(ctx context.Context, dir string, packages ...string) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	kept := filepath.Join(cache, "sluice", "built")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(kept, ".lock"))
	defer lock.Close()
	if _, err := lock.TryLockContext(ctx, 50*time.Millisecond); err != nil {
		return fmt.Errorf("wait for another process that builds %s: %w", strings.Join(packages, " "), err)
	}
	args := append([]string{"build", "-ldflags=-s -w", "-o", kept + string(os.PathSeparator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOTMPDIR="+kept) // so that a program is moved there as a whole
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(packages, " "), err, bytes.TrimSpace(out))
	}
	for _, p := range packages {
		name := path.Base(p)
		if runtime.GOOS == "windows" {
			name += ".exe"
		}
		if err := linkOrCopy(filepath.Join(kept, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// linkOrCopy gives a program another name. go build replaces a file and does not write into it, so
// the program of this name stays what it is.
func linkOrCopy(from, to string) error {
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	return duplicate(from, to) // on another file system
}

func duplicate(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	defer target.Close()
	if _, err := io.Copy(target, source); err != nil {
		return err
	}
	return target.Close()
}
