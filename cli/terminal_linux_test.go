package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/admin"
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

func TestWatchInATerminal(t *testing.T) {
	t.Parallel()
	peers := make([]admin.Peer, 40)
	for i := range peers {
		peers[i] = admin.Peer{Service: "star", ID: fmt.Sprint("star-", i), State: "up"}
	}
	answers := map[string]any{"/api/services": []admin.Service{{Service: "star"}}, "/api/peers": peers}
	address := serveJSON(t, func(r *http.Request) any { return answers[r.URL.Path] })
	program, user := openTerminal(t)
	var seen subprocess.Output
	go io.Copy(&seen, user) // until the terminal is closed
	root := NewRoot()
	root.SetArgs([]string{"peers", "--watch", "--admin", address})
	root.SetOut(program)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- root.ExecuteContext(ctx) }()
	consultest.Await(t, "the screen", func() bool { return strings.Contains(seen.String(), wrapLines) })
	cancel()
	verify.Succeeds(t, <-ended)
	screen, _, _ := strings.Cut(seen.String(), wrapLines)
	verify.Equal(t, strings.Count(screen, "\n"), 29, "the lines of a screen of 30")
	verify.That(t, strings.Contains(screen, "star-26 ") && strings.Contains(screen, "… 13 more lines"), "the screen is\n%s", screen)
}

// On a terminal the log is for people, also after a reload and in a new process.
func TestLogInATerminal(t *testing.T) {
	t.Parallel()
	for variable, begin := range map[string]string{"NO_COLOR=": " \x1b[32mINF\x1b[0m \x1b[1m", "NO_COLOR=1": " INF "} {
		t.Run(variable, func(t *testing.T) {
			t.Parallel()
			program, user := openTerminal(t)
			var seen subprocess.Output
			go io.Copy(&seen, user) // until the terminal is closed
			s := newServing(t, "", static("http://127.0.0.1:1"))
			s.terminal = program
			s.command.Args = append([]string{"env", variable}, s.command.Args[1:]...)
			s.serve()
			s.configure("log: { level: debug }\n" + static("http://127.0.0.1:2"))
			consultest.Await(t, "the reload", func() bool { return strings.Contains(seen.String(), begin+"configuration applied") })
			s.replace()
			s.end()
			consultest.Await(t, "the end", func() bool { return strings.Contains(seen.String(), begin+"stopped") })
			verify.That(t, !strings.Contains(seen.String(), `"level":`), "JSON is in\n%s", &seen)
		})
	}
}
