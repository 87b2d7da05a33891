package subprocess

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/test/verify"
)

// patience limits the wait for another process on a busy machine.
const patience = 2 * time.Minute

// envRole makes the test binary run as another program.
const envRole = "SUBPROCESS_TEST_ROLE"

// TestMain runs as the parent of TestChildDiesWithItsParent, or as the program with many
// threads, if envRole is set.
func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "threads":
		for range threads {
			go func() {
				runtime.LockOSThread()
				for {
					time.Sleep(time.Microsecond)
				}
			}()
		}
		select {}
	case "parent":
		p, err := Start(Options{Program: "sleep", Args: []string{"600"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		select {}
	}
	os.Exit(m.Run())
}

func TestChildDiesWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), envRole+"=parent")
	out := verify.Result(parent.StdoutPipe()).Must(t)
	verify.NoError(t, parent.Start())
	line := verify.Result(bufio.NewReader(out).ReadString('\n')).Must(t)
	pid := verify.Result(strconv.Atoi(strings.TrimSpace(line))).Must(t)
	parent.Process.Kill()
	parent.Wait()
	for end := time.Now().Add(patience); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("the child %d lives after its parent was killed", pid)
		}
	}
}

func TestStopIsGentleFirst(t *testing.T) {
	var out Output
	p := verify.Result(Start(Options{Program: "sh", Args: []string{"-c", `trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done`}, Output: &out})).Must(t)
	defer p.Kill()
	for end := time.Now().Add(patience); !strings.Contains(out.String(), "ready"); time.Sleep(time.Millisecond) {
		verify.Require(t, !time.Now().After(end), "the shell did not start")
	}
	verify.NoError(t, p.Stop())
	<-p.Exited()
	if exit := (*exec.ExitError)(nil); !errors.As(p.Err(), &exit) || exit.ExitCode() != 3 || !strings.Contains(out.String(), "bye") {
		t.Errorf("ended with %v and %q, want status 3 and a farewell", p.Err(), out.String())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("stop of a process that has ended: %v", err)
	}
}

const threads = 8

// After Pause, no thread of the process runs.
func TestPauseReturnsWhenEveryThreadHasStopped(t *testing.T) {
	p := verify.Result(Start(Options{Program: os.Args[0], Env: []string{envRole + "=threads"}})).Must(t)
	defer p.Kill()
	for end := time.Now().Add(patience); len(threadStates(t, p.PID())) < threads; time.Sleep(time.Millisecond) {
		verify.Require(t, !time.Now().After(end), "the program did not start")
	}
	for range 20 {
		verify.NoError(t, p.Pause())
		states := threadStates(t, p.PID())
		verify.Require(t, strings.Trim(states, "T") == "", "the threads are in the states %s, want all stopped", states)
		if err := p.Pause(); err != nil {
			t.Errorf("a second time: %v", err)
		}
		verify.NoError(t, p.Resume())
	}
	verify.NoError(t, p.Kill())
	if err := p.Pause(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("pause of a process that has ended: %v", err)
	}
}

// threadStates returns the letters of the states of the threads of a process.
func threadStates(t *testing.T, pid int) string {
	t.Helper()
	files := verify.Result(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))).Must(t)
	var states strings.Builder
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		_, state, _ := strings.Cut(string(stat), ") ")
		states.WriteString(state[:1])
	}
	return states.String()
}

func TestProgramThatDoesNotExist(t *testing.T) {
	_, err := Start(Options{Program: "/no/such/program"})
	verify.That(t, errors.Is(err, os.ErrNotExist), "got %v, want one that says so", err)
}

// alive reports whether pid runs. A zombie does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}
