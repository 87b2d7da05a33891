//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sluice/test/subprocess"
)

// instance is the process of an app.
type instance struct {
	id           string
	process      *subprocess.Process
	output       *appOutput
	registeredAt time.Time // begin of the last registration
}

// startInstance starts an app and waits until it is registered with the agent.
func startInstance(ctx context.Context, id, consul string, farewell time.Duration) (*instance, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	output := &appOutput{registered: make(chan time.Time, 16), rest: subprocess.NewTail(4 << 10)}
	p, err := subprocess.Start(subprocess.Options{
		Program: self,
		Args:    []string{appCommand, "-id", id, "-consul", consul, "-farewell", farewell.String()},
		Output:  output,
	})
	if err != nil {
		return nil, err
	}
	i := &instance{id: id, process: p, output: output}
	if err := i.awaitRegistration(ctx); err != nil {
		_ = p.Kill() // the other error is returned
		return nil, err
	}
	return i, nil
}

// awaitRegistration waits for the next registration of the app.
func (i *instance) awaitRegistration(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case i.registeredAt = <-i.output.registered:
		return nil
	case <-i.process.Exited():
		return fmt.Errorf("%s ended: %v: %s", i.id, i.process.Err(), i.output.rest)
	case <-ctx.Done():
		return fmt.Errorf("wait until %s is registered: %w", i.id, context.Cause(ctx))
	}
}

// registerAgain makes the app register, and waits for that.
func (i *instance) registerAgain(ctx context.Context) error {
	if err := syscall.Kill(i.process.PID(), syscall.SIGUSR1); err != nil {
		return fmt.Errorf("tell %s to register: %w", i.id, err)
	}
	return i.awaitRegistration(ctx)
}

// requestLeave makes the app deregister and end, and does not wait.
func (i *instance) requestLeave() error {
	if err := syscall.Kill(i.process.PID(), syscall.SIGTERM); err != nil {
		return fmt.Errorf("tell %s to leave: %w", i.id, err)
	}
	return nil
}

// registeredPrefix is the prefix of the line that an app prints after its registration.
const registeredPrefix = "registered, begun at "

func registeredLine(begin time.Time) string {
	return registeredPrefix + strconv.FormatInt(begin.UnixNano(), 10)
}

// parseRegistered returns the time in a line that registeredLine made.
func parseRegistered(line string) (time.Time, bool) {
	digits, found := strings.CutPrefix(line, registeredPrefix)
	nanos, err := strconv.ParseInt(digits, 10, 64)
	return time.Unix(0, nanos), found && err == nil
}

// appOutput reads the output of an app. Only the exec package calls Write, from one goroutine.
type appOutput struct {
	registered chan time.Time   // begins of registrations
	rest       *subprocess.Tail // other lines
	line       []byte           // an incomplete one
}

func (o *appOutput) Write(b []byte) (int, error) {
	o.line = append(o.line, b...)
	for {
		line, after, complete := bytes.Cut(o.line, []byte("\n"))
		if !complete {
			return len(b), nil
		}
		if at, ok := parseRegistered(string(line)); ok {
			o.registered <- at
		} else {
			fmt.Fprintf(o.rest, "%s\n", line)
		}
		o.line = after
	}
}
