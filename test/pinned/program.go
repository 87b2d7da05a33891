package pinned

import (
	"cmp"
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
)

// Program is a program that a nested module pins.
type Program struct {
	Name    string // of its file: "consul"
	Title   string // of the product, for messages: "Consul"
	Module  string // module that has the version: "github.com/hashicorp/consul"
	Package string // its main package; Module if empty
	Dir     string // of the nested module, relative to the root of this repository, with slashes
}

// Binary returns the path of the program, and builds it if necessary; concurrent
// callers build it once. progress, if not nil, gets lines about the build.
func (p Program) Binary(ctx context.Context, progress io.Writer) (string, error) {
	if progress == nil {
		progress = io.Discard
	}
	b, err := p.build(ctx)
	if err != nil {
		return "", err
	}
	return buildOnce(ctx, progress, b)
}

// Built reports whether Binary returns the path without a build.
func (p Program) Built(ctx context.Context) bool {
	b, err := p.build(ctx)
	return err == nil && exists(b.target)
}

// build returns what Binary builds.
func (p Program) build(ctx context.Context) (build, error) {
	dir, err := p.dir(ctx)
	if err != nil {
		return build{}, err
	}
	version, err := versionIn(dir, p.Module)
	if err != nil {
		return build{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return build{}, err
	}
	name := p.Name + "-" + version + "-" + runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return build{
		module:  dir,
		program: cmp.Or(p.Package, p.Module),
		title:   p.Title + " " + version,
		target:  filepath.Join(cache, "sluice", name),
	}, nil
}

// Version returns the pinned version: "v1.22.7".
func (p Program) Version(ctx context.Context) (string, error) {
	dir, err := p.dir(ctx)
	if err != nil {
		return "", err
	}
	return versionIn(dir, p.Module)
}

// dir returns the directory of the nested module.
func (p Program) dir(ctx context.Context) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	here := filepath.Dir(file)
	if !filepath.IsAbs(here) { // built with -trimpath
		out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "sluice/test/pinned").Output()
		if err != nil {
			return "", fmt.Errorf("find the source tree: %w", withStderr(err))
		}
		here = strings.TrimSpace(string(out))
	}
	dir := filepath.Join(filepath.Dir(filepath.Dir(here)), filepath.FromSlash(p.Dir))
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return "", fmt.Errorf("find the module that pins %s: %w", p.Title, err)
	}
	return dir, nil
}

// versionIn returns the version of a module that the go.mod in dir requires.
func versionIn(dir, module string) (string, error) {
	goMod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(module) + `\s+(v\S+)`).FindSubmatch(goMod)
	if match == nil {
		return "", fmt.Errorf("%s requires no %s", filepath.Join(dir, "go.mod"), module)
	}
	return string(match[1]), nil
}

// withStderr adds the standard error of the command to an error of exec.Cmd.Output.
func withStderr(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
