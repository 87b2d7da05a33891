package browser

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"sluice/test/consultest"
)

// Shared by all tests. Each test has a process of sluice and a tab.
var (
	program  string            // sluice's binary
	chromium context.Context   // the browser
	consul   *consultest.Agent // tests use services of different names
)

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	dir, err := os.MkdirTemp("", "sluice-browser-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)

	program = filepath.Join(dir, "sluice")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}

	consul, err = consultest.StartAgent(context.Background(), consultest.Options{Progress: os.Stderr})
	if err != nil {
		return 0, fmt.Errorf("start consul: %w", err)
	}
	defer func() { err = errors.Join(err, consul.Close()) }()

	profile := filepath.Join(dir, "profile")
	stop, err := startChromium(profile)
	if err != nil {
		return 0, fmt.Errorf("start chromium: %w", err)
	}
	defer func() { err = errors.Join(err, stop(), noneLeft(profile)) }()
	return m.Run(), nil // which also waits for the tests that run in parallel
}

// startChromium starts the browser with a new profile. It resolves no names and contacts no other
// host.
func startChromium(profile string) (stop func() error, err error) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.UserDataDir(profile),
		chromedp.NoSandbox, // which does not work as root
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
	)
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	browser, cancelBrowser := chromedp.NewContext(allocator)
	if err := chromedp.Do(browser); err != nil {
		cancelBrowser()
		cancelAllocator()
		return nil, err
	}
	chromium = browser
	return func() error {
		defer cancelAllocator()
		defer cancelBrowser()
		ctx, cancel := context.WithTimeout(browser, patience)
		defer cancel()
		return chromedp.Cancel(ctx)
	}, nil
}

// noneLeft returns an error if a process still uses the profile after a while.
func noneLeft(profile string) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var left []string
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline") // none on other systems
		for _, name := range lines {
			line, err := os.ReadFile(name)
			if err == nil && bytes.Contains(line, []byte(profile)) {
				left = append(left, string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
			}
		}
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d processes of chromium are left: %.200s", len(left), left)
		}
	}
}
