//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"sluice/test/subprocess"
)

// watcher is a process that watches every service, as a replica of sluice does.
type watcher struct {
	process *subprocess.Process
	sets    <-chan set
	usage   string // URL
	stop    func() // ends the process
}

// set is a line of the watching process.
type set struct {
	service string
	serving int
	at      time.Time
}

// setTimeout is how long a set may take to arrive.
const setTimeout = 2 * time.Minute

// startWatcher starts a process with these arguments of watchCommand.
func startWatcher(args ...string) (*watcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	output, input := io.Pipe()
	p, err := subprocess.Start(subprocess.Options{Program: self, Args: append([]string{watchCommand}, args...), Output: input})
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(output)
	if !lines.Scan() {
		return nil, errors.New("the watching process ended")
	}
	sets := make(chan set, 100_000)
	go func() {
		defer close(sets)
		for lines.Scan() {
			if s, ok := parseSet(lines.Text()); ok {
				sets <- s
			} else {
				fmt.Fprintln(os.Stderr, lines.Text())
			}
		}
	}()
	stop := func() {
		_ = p.Stop() // it is in the way of nothing
		input.Close()
		for range sets {
		}
	}
	return &watcher{process: p, sets: sets, usage: "http://" + lines.Text() + "/usage", stop: stop}, nil
}

func parseSet(line string) (set, bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 {
		return set{}, false
	}
	serving, err1 := strconv.Atoi(fields[1])
	nanos, err2 := strconv.ParseInt(fields[2], 10, 64)
	return set{fields[0], serving, time.Unix(0, nanos)}, err1 == nil && err2 == nil
}

// first waits for the first set of each service, and returns when the last of them came.
func (w *watcher) first(ctx context.Context, services int) (last time.Time, err error) {
	seen := make(map[string]bool, services)
	for len(seen) < services {
		s, err := w.next(ctx, func(s set) bool { return !seen[s.service] })
		if err != nil {
			return last, fmt.Errorf("first set %d: %w", len(seen), err)
		}
		seen[s.service], last = true, s.at
	}
	return last, nil
}

// next returns the next set that is wanted.
func (w *watcher) next(ctx context.Context, wanted func(set) bool) (set, error) {
	timeout := time.NewTimer(setTimeout)
	defer timeout.Stop()
	for {
		select {
		case s, ok := <-w.sets:
			if !ok {
				return set{}, errors.New("the watching process ended")
			}
			if wanted(s) {
				return s, nil
			}
		case <-timeout.C:
			return set{}, fmt.Errorf("no set within %v", setTimeout)
		case <-ctx.Done():
			return set{}, errors.New("interrupted")
		}
	}
}

// used queries what the process has used.
func (w *watcher) used() (usage, error) {
	response, err := http.Get(w.usage)
	if err != nil {
		return usage{}, err
	}
	defer response.Body.Close()
	var u usage
	err = json.NewDecoder(response.Body).Decode(&u)
	return u, err
}

// withoutProbes returns the number of queries without probes, whose number does not depend on
// changes.
func (u usage) withoutProbes() uint64 { return u.Queries - u.Probes }
