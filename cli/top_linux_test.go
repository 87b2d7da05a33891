package cli

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/admin"
	"sluice/observe/events"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// openTerminal returns the two ends of a terminal of 100 by 30 characters: what a program
// uses, and what a user does.
func openTerminal(t *testing.T) (program, user *os.File) {
	t.Helper()
	user = verify.Result(os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)).Must(t)
	t.Cleanup(func() { user.Close() })
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100})
	}
	verify.NoError(t, err)
	program = verify.Result(os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)).Must(t)
	t.Cleanup(func() { program.Close() })
	return program, user
}

func TestTopInATerminal(t *testing.T) {
	t.Parallel()
	answers := map[string]any{
		"/api/services": []admin.Service{{Service: "star", Peers: map[string]int{"up": 1}, Eligible: 1}},
		"/api/peers":    []admin.Peer{{Service: "star", ID: "star-1", Address: "10.0.0.1:80", State: "up", Used: true}},
		"/api/events":   []events.Event{{Text: "star-1 joined"}},
	}
	address := serveJSON(t, func(r *http.Request) any { return answers[r.URL.Path] })
	program, user := openTerminal(t)
	var seen subprocess.Output
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := user.Read(buffer)
			_, _ = seen.Write(buffer[:n])
			if err != nil {
				return // the terminal is closed
			}
		}
	}()
	root := newRoot()
	root.SetArgs([]string{"top", "--admin", address})
	root.SetIn(program)
	root.SetOut(program)
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(t.Context()) }()
	sees := func(text string) {
		t.Helper()
		consultest.Await(t, text+" is on the screen", func() bool { return strings.Contains(seen.String(), text) })
	}
	press := func(keys string) {
		t.Helper()
		verify.Result(user.WriteString(keys)).Must(t)
	}
	sees("star-1 joined")
	press("\r")
	sees("10.0.0.1:80")
	press("q")
	verify.Succeeds(t, <-ended)
}

func TestTopNeedsATerminal(t *testing.T) {
	t.Parallel()
	prints(t, exitFailed, "sluice: top needs a terminal: \"sluice peers\" writes to files and pipes\n", "top")
}
