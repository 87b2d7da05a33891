package consultest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// EnvBinary is the environment variable that names the consul program to use.
const EnvBinary = "SLUICE_CONSUL"

const consulModule = "github.com/hashicorp/consul"

// Binary returns the path of a consul program, which it builds if there is
// none (see the package comment). Processes that need it at the same time build
// it once. Progress, if not nil, gets lines that say what is going on while that
// takes time.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	if path := os.Getenv(EnvBinary); path != "" {
		path, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", EnvBinary, err)
		}
		return path, nil
	}
	if path, err := exec.LookPath("consul"); err == nil {
		return filepath.Abs(path)
	}
	if progress == nil {
		progress = io.Discard
	}
	path, err := cachedBinary(ctx, progress)
	if err != nil {
		return "", fmt.Errorf("build consul: %w (or install it, or set %s)", err, EnvBinary)
	}
	return path, nil
}

func cachedBinary(ctx context.Context, progress io.Writer) (string, error) {
	module, err := nestedModule(ctx)
	if err != nil {
		return "", err
	}
	version, err := pinnedVersion(module)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	name := "consul-" + version + "-" + runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return buildOnce(ctx, progress, build{
		module:  module,
		program: consulModule,
		title:   "Consul " + version,
		target:  filepath.Join(cache, "sluice", name),
	})
}

// nestedModule returns the directory of the module that pins Consul.
func nestedModule(ctx context.Context) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Dir(file)
	if !filepath.IsAbs(dir) { // built with -trimpath
		out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "sluice/consultest").Output()
		if err != nil {
			return "", fmt.Errorf("find the source tree: %w", withStderr(err))
		}
		dir = strings.TrimSpace(string(out))
	}
	module := filepath.Join(dir, "consul")
	if _, err := os.Stat(filepath.Join(module, "go.mod")); err != nil {
		return "", fmt.Errorf("find the module that pins Consul: %w", err)
	}
	return module, nil
}

var pinned = regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(consulModule) + `\s+(v\S+)`)

func pinnedVersion(module string) (string, error) {
	goMod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	match := pinned.FindSubmatch(goMod)
	if match == nil {
		return "", fmt.Errorf("%s requires no %s", filepath.Join(module, "go.mod"), consulModule)
	}
	return string(match[1]), nil
}

// build is one program to build from a module's directory.
type build struct {
	module  string // the directory with go.mod
	program string // the package to build
	title   string // for progress lines
	target  string // the file to make
}

// buildOnce returns b.target, and builds it before if it does not exist. Of
// several processes one builds and the others wait for it.
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
			return "", fmt.Errorf("wait for another process that builds %s: %w", b.title, err)
		}
	}
	if exists(b.target) {
		return b.target, nil
	}
	return b.target, b.run(ctx, progress)
}

// run builds into a temporary file beside the target and renames it, so that
// the target is complete whenever it exists. It needs the lock.
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

// withStderr adds what the command said to an error of exec.Cmd.Output.
func withStderr(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
