//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// loadResult is what wrk saw during one run.
type loadResult struct {
	Requests int64         `json:"requests"`
	Bytes    int64         `json:"bytes"`
	Took     time.Duration `json:"took_ns"`
	Failed   int64         `json:"failed"`   // connections that could not be made, read or written
	Status   int64         `json:"status"`   // answers outside 2xx and 3xx
	Timeouts int64         `json:"timeouts"` // answers later than ten seconds
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	P999     time.Duration `json:"p999_ns"`
	Max      time.Duration `json:"max_ns"`
}

func (r loadResult) perSecond() float64 { return float64(r.Requests) / r.Took.Seconds() }

func (r loadResult) errors() int64 { return r.Failed + r.Status + r.Timeouts }

// wrk generates load on the CPUs of a list.
type wrk struct {
	script string
	cpus   string
}

// newWrk writes wrk's script into dir.
func newWrk(dir, cpus string) (*wrk, error) {
	script, err := conf.ReadFile("conf/wrk.lua")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "wrk.lua")
	return &wrk{script: path, cpus: cpus}, os.WriteFile(path, script, 0o644)
}

// run puts the load of w on address for d.
func (l *wrk) run(ctx context.Context, w workload, address string, d time.Duration) (loadResult, error) {
	method := w.method
	if method == "" {
		method = "GET"
	}
	args := []string{"-c", l.cpus, "wrk", "-t1", "-c" + strconv.Itoa(w.conns),
		"-d" + strconv.Itoa(max(1, int(d.Round(time.Second).Seconds()))) + "s",
		"--timeout", "10s", "-s", l.script}
	if w.close {
		args = append(args, "-H", "Connection: close")
	}
	args = append(args, "http://"+address+w.path, "--",
		method, strconv.Itoa(w.body), strconv.FormatInt(w.pause.Milliseconds(), 10))
	out, err := exec.CommandContext(ctx, "taskset", args...).CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	r, err := parseLoad(string(out))
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return r, nil
}

// errNothing: no request was answered.
var errNothing = errors.New("no request was answered")

// warmUp puts load on address for a second, so that connection pools fill and
// the heap settles. On a machine with much other work it takes several tries
// until there is an answer.
func (l *wrk) warmUp(ctx context.Context, w workload, address string) error {
	const tries = 5
	for try := 1; ; try++ {
		_, err := l.run(ctx, w, address, time.Second)
		if try == tries || !errors.Is(err, errNothing) {
			return err
		}
	}
}

// parseLoad reads the line that conf/wrk.lua prints.
func parseLoad(output string) (loadResult, error) {
	var r loadResult
	for line := range strings.Lines(output) {
		fields, ok := strings.CutPrefix(strings.TrimSpace(line), "bench ")
		if !ok {
			continue
		}
		values := make(map[string]int64)
		for field := range strings.FieldsSeq(fields) {
			key, text, _ := strings.Cut(field, "=")
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return r, fmt.Errorf("result %q: %w", field, err)
			}
			values[key] = n
		}
		us := func(key string) time.Duration { return time.Duration(values[key]) * time.Microsecond }
		r = loadResult{
			Requests: values["requests"], Bytes: values["bytes"], Took: us("duration_us"),
			Failed: values["failed"], Status: values["status"], Timeouts: values["timeout"],
			P50: us("p50_us"), P99: us("p99_us"), P999: us("p999_us"), Max: us("max_us"),
		}
		if r.Requests == 0 || r.Took == 0 {
			return r, errNothing
		}
		return r, nil
	}
	return r, errors.New("no result line")
}
