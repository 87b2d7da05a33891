//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/bench/h3load"
)

// http3 reports whether the clients of w speak HTTP/3.
func (w workload) http3() bool { return w.load == loadH3 || w.load == loadH3Dials }

// h3 returns the load of w on address.
func (w workload) h3(address string) h3load.Load {
	return h3load.Load{Server: address, Path: w.path, Body: cmp.Or(w.bytes, smallBytes), Conns: w.conns, Streams: w.streams}
}

// runH3 puts the load of w on address for d.
func runH3(ctx context.Context, w workload, address string, d time.Duration) (loadResult, error) {
	l := w.h3(address)
	of, err := l.Run(ctx, d)
	if err != nil {
		return loadResult{}, err
	}
	r := loadResult{Requests: of.Requests, Bytes: of.Requests * l.Body, Took: of.Took, Failed: of.Failed, Status: of.Wrong, Timeouts: of.Late}
	if of.Reason != nil {
		r.Reason = of.Reason.Error()
	}
	if r.Requests == 0 {
		return r, fmt.Errorf("%w: %w", errNothing, of.Reason)
	}
	r.setLatencies(of.Times)
	return r, nil
}

// probeH3 expects that a connection is accepted, with an answer.
func (w workload) probeH3(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	w.path, w.bytes = "/small", 0
	idle, err := w.h3(address).OpenIdle(ctx, 1)
	_ = idle.Close()
	return err
}

// goHeap is what the heap and the stacks of a program in Go hold.
type goHeap struct {
	Heap   int64 `json:"heap_bytes"` // after a collection
	Stacks int64 `json:"stack_bytes"`
}

// readGoHeap asks the profiler of Go that the admin listener of sluice and of Caddy has.
func readGoHeap(ctx context.Context, admin string) (goHeap, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/debug/pprof/heap?gc=1&debug=1", nil)
	if err != nil {
		return goHeap{}, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return goHeap{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return goHeap{}, err
	}
	if response.StatusCode != http.StatusOK {
		return goHeap{}, fmt.Errorf("profile of the heap: %s", response.Status)
	}
	return parseGoHeap(string(text))
}

// parseGoHeap reads the lines "# HeapAlloc = 1234" and "# Stack = 1234 / 5678".
func parseGoHeap(profile string) (h goHeap, err error) {
	for line := range strings.Lines(profile) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		value, _, _ = strings.Cut(value, " ")
		var to *int64
		switch name {
		case "# HeapAlloc":
			to = &h.Heap
		case "# Stack":
			to = &h.Stacks
		default:
			continue
		}
		if *to, err = strconv.ParseInt(value, 10, 64); err != nil {
			return h, fmt.Errorf("profile of the heap: %q: %w", line, err)
		}
	}
	if h.Heap == 0 || h.Stacks == 0 {
		return h, errors.New("profile of the heap: no sizes")
	}
	return h, nil
}
