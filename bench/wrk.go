//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// runWrk puts the load of w on address for d with wrk.
func (l *load) runWrk(ctx context.Context, w workload, address string, d time.Duration) (loadResult, error) {
	method := w.method
	if method == "" {
		method = "GET"
	}
	args := []string{"wrk", "-t1", "-c" + strconv.Itoa(w.conns),
		"-d" + strconv.Itoa(max(1, int(d.Round(time.Second).Seconds()))) + "s",
		"--timeout", "10s", "-s", filepath.Join(l.dir, "wrk.lua")}
	if w.close {
		args = append(args, "-H", "Connection: close")
	}
	args = append(args, w.url(address), "--",
		method, strconv.Itoa(w.body), strconv.FormatInt(w.pause.Milliseconds(), 10))
	out, err := l.command(ctx, args...).CombinedOutput()
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	r, err := parseWrk(string(out))
	if err != nil {
		return loadResult{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return r, nil
}

// parseWrk reads the line that conf/wrk.lua prints.
func parseWrk(output string) (loadResult, error) {
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
