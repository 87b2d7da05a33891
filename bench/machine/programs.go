package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildSluice builds this module's main package in dir as it is released, but with
// symbols for profiles, and returns the path of the program.
func BuildSluice(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "sluice")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-o", path, "sluice")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build sluice: %w\n%s", err, out)
	}
	return path, nil
}

// Program finds a program that may live outside an ordinary user's PATH.
func Program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/sbin/" + name
}

// Require says which Debian packages are missing, if any.
func Require(tools map[string]string) error {
	var missing, packages []string
	for tool, pkg := range tools {
		if _, err := exec.LookPath(tool); err == nil {
			continue
		}
		if _, err := os.Stat("/usr/sbin/" + tool); err == nil {
			continue // installed, but sbin is not on this user's PATH
		}
		missing = append(missing, tool)
		packages = append(packages, pkg)
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("not installed: %s; on Debian or Ubuntu: sudo apt-get update && sudo apt-get install %s",
		strings.Join(missing, ", "), strings.Join(packages, " "))
}

// Commit returns "sluice" and the commit that BuildSluice builds, with "-dirty" if files differ
// from it.
func Commit(ctx context.Context) string {
	return "sluice " + FirstLine(ctx, "git", "describe", "--always", "--dirty")
}

// FirstLine runs a command and returns the first line that it prints.
func FirstLine(ctx context.Context, command ...string) string {
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return command[0] + ": " + err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	line, _, _ = strings.Cut(strings.TrimSpace(line), " - ")
	return line
}
