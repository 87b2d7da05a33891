package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/examples/grpc/helloworld"
)

// load makes calls until it is stopped.
type load struct {
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards counts
	counts counts
}

// counts are a load's.
type counts struct {
	calls, failed int
	byName        map[string]int // calls by the greeter that answered
	failures      []string       // the first ones
}

// patience is the timeout of a call, far above its usual duration.
const patience = 30 * time.Second

// startLoad makes calls on one connection: unary ones and, half as often, those with a stream of
// replies. Each caller waits for its reply and a pause.
func startLoad(client helloworld.GreeterClient) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, counts: counts{byName: make(map[string]int)}}
	for _, call := range []func(context.Context, helloworld.GreeterClient) (string, error){hello, hello, hellos} {
		l.running.Go(func() {
			pause := time.NewTicker(10 * time.Millisecond)
			defer pause.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-pause.C:
				}
				begin := time.Now()
				limited, cancel := context.WithTimeout(context.Background(), patience) // goes on after stop
				name, err := call(limited, client)
				cancel()
				l.note(begin, name, err)
			}
		})
	}
	return l
}

func (l *load) note(begin time.Time, name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.calls++
	if err == nil {
		l.counts.byName[name]++
		return
	}
	l.counts.failed++
	if len(l.counts.failures) < 10 {
		l.counts.failures = append(l.counts.failures, fmt.Sprintf("%s, %v: %v", begin.Format("15:04:05.000"), time.Since(begin), err))
	}
}

// count returns the present counters.
func (l *load) count() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts
	c.byName, c.failures = maps.Clone(c.byName), slices.Clone(c.failures)
	return c
}

// stop waits for the calls in flight, and returns the last counters.
func (l *load) stop() counts {
	l.cancel()
	l.running.Wait()
	return l.count()
}
