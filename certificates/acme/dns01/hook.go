package dns01

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/libdns/libdns"
)

// A hook is an operator's program that makes and removes records, as the hooks of lego do.
// Its arguments are "present" or "cleanup", the name of the record with a final dot, and its value.
// There is no shell, and only PATH of the environment.
type hook struct {
	command []string // the path of the program, and its first arguments
}

// AppendRecords implements libdns.RecordAppender.
func (h hook) AppendRecords(ctx context.Context, zone string, all []libdns.Record) ([]libdns.Record, error) {
	return h.each(ctx, "present", zone, all)
}

// DeleteRecords implements libdns.RecordDeleter.
func (h hook) DeleteRecords(ctx context.Context, zone string, all []libdns.Record) ([]libdns.Record, error) {
	return h.each(ctx, "cleanup", zone, all)
}

func (h hook) each(ctx context.Context, action, zone string, all []libdns.Record) ([]libdns.Record, error) {
	for _, record := range all {
		rr := record.RR()
		if err := h.run(ctx, action, libdns.AbsoluteName(rr.Name, zone), rr.Data); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// outputWait bounds the wait for the output of a program that has ended: its children may hold it.
const outputWait = time.Second

// run runs the program until it ends. When ctx ends, it kills the program's process group.
// The error has the end of the output.
func (h hook) run(ctx context.Context, arguments ...string) error {
	written := new(output)
	command := exec.CommandContext(ctx, h.command[0], append(h.command[1:len(h.command):len(h.command)], arguments...)...)
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	command.Stdout, command.Stderr = written, written
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error {
		if err := syscall.Kill(-command.Process.Pid, syscall.SIGKILL); err != nil {
			return os.ErrProcessDone
		}
		return nil
	}
	command.WaitDelay = outputWait
	err := command.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("it was killed: %w", context.Cause(ctx))
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return fmt.Errorf("%s %s: %w%s", h.command[0], arguments[0], err, written)
}

// output keeps the end of what is written to it.
type output struct{ text []byte }

// maxOutputBytes is how much of the output of a program is kept.
const maxOutputBytes = 1 << 10

func (o *output) Write(p []byte) (int, error) {
	o.text = append(o.text, p...)
	if over := len(o.text) - maxOutputBytes; over > 0 {
		o.text = append(o.text[:0], o.text[over:]...)
	}
	return len(p), nil
}

// String returns the text on one line, after a colon; "": there is none.
func (o *output) String() string {
	printable := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(o.text), " "))
	if line := strings.Join(strings.Fields(printable), " "); line != "" {
		return ": " + line
	}
	return ""
}
