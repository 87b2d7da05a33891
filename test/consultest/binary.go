package consultest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"sluice/test/pinned"
)

// EnvBinary is the environment variable with the path of the consul program.
const EnvBinary = "SLUICE_CONSUL"

var consul = pinned.Program{
	Name: "consul", Title: "Consul", Module: "github.com/hashicorp/consul", Dir: "test/consultest/consul",
}

// Binary returns the path of a consul program, which it builds if there is none (see the package
// comment). Concurrent processes build it once. progress, if not nil, gets lines about the build.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	if path, err := installed(); path != "" || err != nil {
		return path, err
	}
	path, err := consul.Binary(ctx, progress)
	if err != nil {
		return "", fmt.Errorf("build consul: %w (or install it, or set %s)", err, EnvBinary)
	}
	return path, nil
}

// Present reports whether Binary returns a path without a build.
func Present(ctx context.Context) bool {
	path, err := installed()
	return path != "" || err != nil || consul.Built(ctx)
}

// installed returns the path of the program that the user has; "": none.
func installed() (string, error) {
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
	return "", nil
}
