package dns01

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/libdns/libdns"
	"golang.org/x/sys/unix"

	"sluice/test/verify"
)

// script writes a program that a hook runs.
func script(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "hook")
	verify.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+text), 0o700))
	return file
}

var one = []libdns.Record{libdns.RR{Type: "TXT", Name: "_acme-challenge", Data: "v; $(reboot)"}}

// A program gets its arguments as they are, PATH, and no socket or file of sluice.
func TestHookGetsNoMoreThanItNeeds(t *testing.T) {
	t.Setenv("CONSUL_HTTP_TOKEN", "secret")
	file := filepath.Join(t.TempDir(), "what")
	open := verify.Result(os.Open(os.DevNull)).Must(t)
	defer open.Close()
	inherited := inheritedFiles(t)
	h := hook{[]string{script(t, `for a in "$@"; do echo "argument $a"; done > "$1"; env >> "$1"; for f in /proc/self/fd/*; do readlink "$f"; done >> "$1"; pwd > /dev/null`), file, "own argument"}}
	verify.Result(h.AppendRecords(t.Context(), "a.example.", one)).Must(t)
	lines := strings.Split(strings.TrimSpace(string(verify.Result(os.ReadFile(file)).Must(t))), "\n")
	for i, want := range []string{file, "own argument", "present", "_acme-challenge.a.example.", "v; $(reboot)"} {
		verify.Equal(t, lines[i], "argument "+want, "argument %d", i)
	}
	for _, line := range lines[5:] {
		name, _, _ := strings.Cut(line, "=")
		// The shell sets some of them.
		allowed := append(inherited, "PATH", "PWD", "OLDPWD", "SHLVL", "_", file, os.DevNull)
		pipe := strings.HasPrefix(line, "pipe:") || strings.HasPrefix(line, "/proc/") || strings.HasSuffix(line, "/hook") || line == ""
		verify.That(t, pipe || slices.Contains(allowed, name), "the program has %q", line)
	}
}

// inheritedFiles returns the names of the files that every program of this process gets, because
// who has started the test left them open.
func inheritedFiles(t *testing.T) (names []string) {
	entries, _ := os.ReadDir("/proc/self/fd") // none without /proc
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		verify.NoError(t, err)
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			names = append(names, verify.Result(os.Readlink("/proc/self/fd/"+entry.Name())).Must(t))
		}
	}
	return names
}

// What a program says is in the error, with a bound.
func TestHookFails(t *testing.T) {
	h := hook{[]string{script(t, `head -c 100000 /dev/zero | tr '\0' x; printf 'the zone\n\033[31m is "locked"\n' >&2; exit 3`)}}
	_, err := h.DeleteRecords(t.Context(), "a.example.", one)
	verify.Require(t, err != nil, "no error")
	text := err.Error()
	verify.That(t, strings.Contains(text, "hook cleanup: exit status 3: xxx") && strings.HasSuffix(text, `xthe zone [31m is "locked"`), "error %q", text)
	verify.That(t, len(text) < maxOutputBytes+200, "the error has %d bytes", len(text))
	_, err = hook{[]string{filepath.Join(t.TempDir(), "none")}}.AppendRecords(t.Context(), "a.example.", one)
	verify.That(t, errors.Is(err, os.ErrNotExist), "no program: %v", err)
}

// A program that does not end is killed, with what it has started.
func TestHookHangs(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "started")
	h := hook{[]string{script(t, `echo waits; sleep 1000 & echo $! > "$1~"; mv "$1~" "$1"; wait`), fifo}}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error)
	go func() {
		_, err := h.AppendRecords(ctx, "a.example.", one)
		ended <- err
	}()
	child := ""
	for tick := time.Tick(5 * time.Millisecond); child == ""; <-tick {
		text, _ := os.ReadFile(fifo)
		child = strings.TrimSpace(string(text))
	}
	cancel(errors.New("not done within 30s"))
	err := <-ended
	verify.That(t, err != nil && strings.Contains(err.Error(), "it was killed: not done within 30s: waits"), "error %v", err)
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%s/stat", child))
		if err != nil || strings.Contains(string(status), ") Z") {
			return // what it has started has ended
		}
	}
}

// A program that has ended well is not waited for because of what it has left behind.
func TestHookLeavesAProgram(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	h := hook{[]string{script(t, `sleep 1000 & echo $! > "$1"`), file}}
	_, err := h.AppendRecords(t.Context(), "a.example.", one)
	verify.NoError(t, err)
	pid := strings.TrimSpace(string(verify.Result(os.ReadFile(file)).Must(t)))
	verify.NoError(t, hook{[]string{script(t, `kill "$1"`), pid}}.run(t.Context()))
}
