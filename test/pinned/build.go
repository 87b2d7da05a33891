package pinned

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// build is a program to build from the directory of a module.
type build struct {
	module  string // the directory with go.mod
	program string // the package to build
	title   string // for progress lines
	target  string // the output file
}

// buildOnce returns b.target, and builds it if it does not exist. If several processes call it, one
// builds and the others wait.
func buildOnce(ctx context.Context, progress io.Writer, b build) (string, error) {
	if exists(b.target) {
		return b.target, nil
	}
	if err := os.MkdirAll(filepath.Dir(b.target), 0o755); err != nil {
		return "", err
	}
	lock := flock.New(b.target + ".lock")
	defer lock.Close()
	if got, err := lock.TryLock(); err != nil {
		return "", err
	} else if !got {
		fmt.Fprintf(progress, "waiting for another process that builds %s\n", b.title)
		if _, err := lock.TryLockContext(ctx, 200*time.Millisecond); err != nil {
			return "", fmt.Errorf("wait for another process that builds %s: %w", b.title, cmp.Or(context.Cause(ctx), err))
		}
	}
	if exists(b.target) {
		return b.target, nil
	}
	return b.target, b.run(ctx, progress)
}

// run builds into a temporary file next to the target and renames it, so an existing target is
// complete. The caller has the file lock.
func (b build) run(ctx context.Context, progress io.Writer) error {
	begin := time.Now()
	fmt.Fprintf(progress, "building %s from its source: once, some minutes where nothing is cached yet\n", b.title)
	partial := b.target + ".partial"
	defer os.Remove(partial)
	command := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags=-s -w", "-o", partial, b.program)
	command.Dir = b.module
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly -buildvcs=false")
	lines := &goProgress{title: b.title, to: progress, begin: begin}
	command.Stdout, command.Stderr = lines, lines
	if err := command.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w:\n%s", err, lines.tail())
	}
	if err := os.Rename(partial, b.target); err != nil {
		return err
	}
	fmt.Fprintf(progress, "built %s in %v: %s\n", b.title, time.Since(begin).Round(time.Second), b.target)
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
