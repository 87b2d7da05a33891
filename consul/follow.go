package consul

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"sluice/observe/panics"
)

// The rate of the queries of one loop. A burst has no delay, so that a change does not
// wait after the previous one. Steady changes cost Consul QueryRate.
const (
	QueryRate  = 5 // a second
	QueryBurst = 10
)

// FollowOptions configure Follow.
type FollowOptions struct {
	Query Query         // Follow sets its index and its wait
	Wait  time.Duration // how long a query blocks without a change, at most 10 min

	// Read reads an answer that may have changed. body is valid until Read returns.
	// After an error the next query does not block.
	Read func(a Answer, body []byte) error
	// Ended is called with the result of each query, except for a single failure: the
	// next query does not block and finds any change.
	Ended func(error)
	// Regressed is called when the index goes backwards: Consul has lost its state. May
	// be nil.
	Regressed func()
	// Begin, if not nil, waits until the next query should be sent, and returns how
	// long it may block, in place of Wait; 0: it does not block.
	Begin func(context.Context) (wait time.Duration, err error)
	// Volume bounds the bytes per second; nil: no bound. Several loops may share it.
	Volume *rate.Limiter
}

// Follow repeats f.Query as a blocking query until ctx ends, and returns ctx's error.
// The rules are in the package comment. Calls of f's functions do not overlap. For
// Oversubscribed the caller calls Join.
func (c *Client) Follow(ctx context.Context, f FollowOptions) error {
	w := followLoop{FollowOptions: f, loop: c.NewLoop(LoopOptions{Remote: f.Query.Datacenter != ""})}
	limiter := rate.NewLimiter(QueryRate, QueryBurst)
	return w.loop.Run(ctx, func(ctx context.Context) error {
		wait, err := f.Wait, error(nil)
		if f.Begin != nil {
			if wait, err = f.Begin(ctx); err != nil {
				return err
			}
		}
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		return w.poll(ctx, wait)
	}, w.fail)
}

// followLoop is one run of Follow.
type followLoop struct {
	FollowOptions
	loop     *Loop
	index    uint64 // for the next query; 0: it does not block
	last     uint64 // of the last answer
	filtered bool   // ACLs filtered the last answer
	failed   int    // consecutive queries
}

// poll sends one query.
func (f *followLoop) poll(ctx context.Context, wait time.Duration) (err error) {
	defer panics.Contain(panics.Watch, func() {
		f.index = 0
		err = panics.Err // and so the query is repeated after a pause
	})
	q := f.Query
	if wait == 0 {
		f.index = 0
	}
	if f.index > 0 {
		q.WaitIndex = f.index
		q.WaitTime = wait - f.loop.client.Jitter(wait/10)
	}
	buffer := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buffer)
	answer, err := f.loop.Get(ctx, q, func(body io.Reader) error {
		buffer.Reset()
		_, err := buffer.ReadFrom(body)
		return err
	})
	if err == nil {
		err = f.take(answer, buffer.Bytes())
	}
	if err != nil {
		f.index = 0
		return err
	}
	f.failed = 0
	f.Ended(nil)
	if f.Volume == nil {
		return nil
	}
	now := time.Now()
	return Sleep(ctx, f.Volume.ReserveN(now, min(buffer.Len(), f.Volume.Burst())).DelayFrom(now))
}

// take processes an answer.
func (f *followLoop) take(a Answer, body []byte) error {
	if err := f.loop.client.Doubt(a); err != nil {
		return err
	}
	if a.Index > 0 && a.Index == f.last && f.index > 0 && a.FilteredByACL == f.filtered {
		return nil // the wait has ended without a change
	}
	if err := f.Read(a, body); err != nil {
		return err
	}
	f.filtered = a.FilteredByACL
	if a.Index < f.last {
		if f.Regressed != nil {
			f.Regressed()
		}
		f.last, f.index = a.Index, 0
	} else {
		f.last, f.index = a.Index, max(a.Index, 1)
	}
	return nil
}

// fail processes an error that the Loop cannot resolve.
func (f *followLoop) fail(err error) {
	if f.failed++; f.failed > 1 || Denied(err) && StatusCode(err) != http.StatusTooManyRequests {
		f.Ended(err)
	}
}

// bodies are buffers for answers, which may be large.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

var errNoLeader = errors.New("the agent knows no leader")
