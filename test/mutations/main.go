// Command mutations seeds known faults into sluice, one at a time, and runs the tests that must
// notice them. It changes no file: the go command reads the faulty one from an overlay.
//
//	go run ./test/mutations                     # all, some seconds each
//	go run ./test/mutations -room balancer
//	go run ./test/mutations -run 'hash|drain' -v
//	go run ./test/mutations -proof              # whether test/proof sees them while requests run
//	go run ./test/mutations -list
//
// It ends with status 1 if a fault survives its tests, no longer applies, or does not compile.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// timeout bounds the run of one fault's tests, without building them. A fault that makes a test
// hang is noticed.
const timeout = 2 * time.Minute

func main() {
	run := flag.String("run", "", "only faults whose name matches this `pattern`")
	room := flag.String("room", "", "only faults in this top-level `folder`")
	proof := flag.Bool("proof", false, "only faults that the proof sees while requests run: a short simulation must show it")
	list := flag.Bool("list", false, "print the faults and run nothing")
	verbose := flag.Bool("v", false, "print what the tests wrote")
	flag.Parse()
	pattern, err := regexp.Compile(*run)
	if err != nil || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	chosen := slices.DeleteFunc(all(), func(m mutation) bool {
		return !pattern.MatchString(m.name) || *room != "" && m.room() != *room
	})
	if *proof {
		chosen = slices.DeleteFunc(chosen, func(m mutation) bool { return m.proof == "" })
		for i, m := range chosen {
			chosen[i] = m.underProof()
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintln(os.Stderr, "no fault is chosen; see -list")
		os.Exit(2)
	}
	if *list {
		for _, m := range chosen {
			fmt.Printf("%-12s %-56s %s\n", m.room(), m.name, m.test)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok := runAll(ctx, chosen, *proof, *verbose)
	stop()
	if !ok {
		os.Exit(1)
	}
}

// runAll prints one line for each fault, and reports whether all of them are red.
func runAll(ctx context.Context, chosen []mutation, proof, verbose bool) bool {
	root, err := moduleRoot()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return false
	}
	var bad []string
	for _, m := range chosen {
		begin := time.Now()
		result, output := try(ctx, root, m)
		if ctx.Err() != nil {
			return false
		}
		if result == red && proof && !strings.Contains(output, " violations of kind "+m.proof) {
			result = green // of another cause
		}
		fmt.Printf("%-6s %-12s %-56s %4.0f s\n", result, m.room(), m.name, time.Since(begin).Seconds())
		if result != red {
			bad = append(bad, m.name)
		}
		if verbose || result == broken {
			fmt.Println(output)
		}
	}
	fmt.Printf("%d of %d red\n", len(chosen)-len(bad), len(chosen))
	if len(bad) > 0 {
		fmt.Println("not red: " + strings.Join(bad, ", "))
	}
	return len(bad) == 0
}

// The results of a fault.
const (
	red    = "red"    // a test has failed
	green  = "GREEN"  // it has survived
	broken = "BROKEN" // it does not apply or compile, or no test matches
)

// try runs the tests of one fault.
func try(ctx context.Context, root string, m mutation) (result, output string) {
	dir, err := os.MkdirTemp("", "sluice-mutation-")
	if err != nil {
		return broken, err.Error()
	}
	defer os.RemoveAll(dir)
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return broken, err.Error()
	}
	pkg, pattern := m.command()
	binary := filepath.Join(dir, "faulty.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", binary, pkg)
	build.Dir = root
	if written, err := build.CombinedOutput(); err != nil {
		return broken, string(written)
	}
	// Run as go test does, but the time to build does not count, and no cache holds the result.
	test := exec.CommandContext(ctx, binary, "-test.run", pattern, "-test.timeout", timeout.String(), "-test.failfast", "-test.v")
	test.Dir = filepath.Join(root, pkg)
	test.Env = append(os.Environ(), "SLUICE_TESTS=all")
	written, err := test.CombinedOutput()
	switch {
	case err != nil && failed.Match(written):
		return red, string(written)
	case err != nil:
		return broken, fmt.Sprintf("%s\n%v", written, err)
	case !bytes.Contains(written, []byte("--- PASS")):
		return broken, "no test matches " + pattern
	}
	return green, string(written)
}

// failed finds a failure of a test, not of its start, in what it wrote.
var failed = regexp.MustCompile(`(?m)^\s*--- FAIL|^panic: |^fatal error: `)

// moduleRoot returns the directory of go.mod.
func moduleRoot() (string, error) {
	path, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(path))), nil
}
