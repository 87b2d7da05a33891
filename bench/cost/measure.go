//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"sluice/bench/machine"
)

// Names of counts besides those of system calls.
const (
	countObjects     = "allocations"
	countBytes       = "bytes"
	countInstructed  = "instructions"
	countLive        = "live-bytes" // of each idle connection
	countNanoseconds = "ns"         // of CPU: not compared with a bound
)

// counts are per request, by name.
type counts map[string]float64

// bench runs works on one program of sluice.
type bench struct {
	program, dir string
	requests     int  // at most, of each work
	noCalls      bool // strace is not needed
	skipped      error
}

// measure starts sluice for w and counts.
func (b *bench) measure(ctx context.Context, w work, f feature) (counts, error) {
	s, err := start(ctx, b.program, b.dir, w, f)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	var c counts
	if w.idle > 0 {
		c, err = b.idle(ctx, w, s)
	} else {
		c, err = b.busy(ctx, w, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, s.output)
	}
	return c, nil
}

// busy counts for each request.
func (b *bench) busy(ctx context.Context, w work, s *sluice) (c counts, err error) {
	clients, err := dialAll(w, s.Listen)
	defer closeAll(clients)
	if err != nil {
		return nil, err
	}
	n := min(w.count(), b.requests)
	if err := send(clients, min(warmRequests, n)); err != nil {
		return nil, err
	}
	c = counts{}
	before, err := s.memory()
	if err != nil {
		return nil, err
	}
	instructed, err := countInstructions(s.process.PID())
	if errors.Is(err, errors.ErrUnsupported) {
		instructed, b.skipped = &instructions{}, err
	} else if err != nil {
		return nil, err
	}
	defer instructed.close()
	began, err := machine.ProcessClock(s.process.PID())
	if err != nil {
		return nil, err
	}
	if err := send(clients, n); err != nil {
		return nil, err
	}
	ended, err := machine.ProcessClock(s.process.PID())
	if err != nil {
		return nil, err
	}
	c[countNanoseconds] = float64(ended-began) / float64(n)
	count, err := instructed.read()
	if err != nil {
		return nil, err
	}
	if len(instructed.counters) > 0 {
		c[countInstructed] = float64(count) / float64(n)
	}
	after, err := s.memory()
	if err != nil {
		return nil, err
	}
	again, err := s.memory() // what the reading itself allocates
	if err != nil {
		return nil, err
	}
	c[countObjects] = max(0, float64(after.objects-before.objects)-float64(again.objects-after.objects)) / float64(n)
	c[countBytes] = max(0, float64(after.bytes-before.bytes)-float64(again.bytes-after.bytes)) / float64(n)
	if b.noCalls {
		return c, nil
	}
	n = min(traced, n)
	calls, err := countCalls(ctx, s.process.PID(), b.dir, func() error { return send(clients, n) })
	c.add(calls, float64(n))
	return c, err
}

// add adds what was counted for n requests.
func (c counts) add(calls map[string]float64, n float64) {
	for name, count := range calls {
		c[name] = count / n
	}
}

// idle counts live bytes of the heap for each connection, and calls for each second. It fails where
// more than a tenth of the connections keep a goroutine, and so a stack.
func (b *bench) idle(ctx context.Context, w work, s *sluice) (c counts, err error) {
	const seconds = 3
	if err := await(ctx, s, 0); err != nil {
		return nil, err
	}
	goroutines, err := s.goroutines()
	if err != nil {
		return nil, err
	}
	before, err := s.memory()
	if err != nil {
		return nil, err
	}
	w.clients = w.idle
	clients, err := dialAll(w, s.Listen)
	defer closeAll(clients)
	if err != nil {
		return nil, err
	}
	for _, client := range clients {
		if err := client.exchange(); err != nil {
			return nil, err
		}
	}
	if err := await(ctx, s, goroutines+w.idle/10); err != nil {
		return nil, err
	}
	for range 2 { // the second collection empties pools
		if _, err := s.memory(); err != nil {
			return nil, err
		}
	}
	after, err := s.memory()
	if err != nil {
		return nil, err
	}
	c = counts{countLive: max(0, float64(after.live)-float64(before.live)) / float64(w.idle)}
	calls, err := countCalls(ctx, s.process.PID(), b.dir, func() error {
		timer := time.NewTimer(seconds * time.Second)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	c.add(calls, seconds)
	return c, err
}

// await waits until sluice has at most most goroutines, if it is not 0, and its pools of buffers
// are empty.
func await(ctx context.Context, s *sluice, most int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.memory(); err != nil {
			return err
		}
		n, err := s.goroutines()
		if err != nil || most == 0 || n <= most {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d goroutines, want at most %d: connections do not become idle", n, most)
		}
	}
}

func dialAll(w work, address string) (clients []client, err error) {
	for range w.clients {
		c, err := w.dial(address)
		if err != nil {
			return clients, err
		}
		clients = append(clients, c)
	}
	return clients, nil
}

func closeAll(clients []client) {
	for _, c := range clients {
		if err := c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "bench/cost:", err)
		}
	}
}

// send sends n requests, as evenly as possible from all clients.
func send(clients []client, n int) error {
	var wg sync.WaitGroup
	errs := make([]error, len(clients))
	for i, c := range clients {
		wg.Go(func() {
			for range (n + i) / len(clients) {
				if errs[i] = c.exchange(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
