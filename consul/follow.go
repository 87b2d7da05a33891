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
	// BeforeQuery, if not nil, waits until the next query should be sent. It returns how long the
	// query may block, in place of Wait; 0: it does not block.
	BeforeQuery func(context.Context) (wait time.Duration, err error)
	// Await, if not nil, replaces blocking queries while the loops are oversubscribed. It waits for
	// a reason to query, which may be from any time since the last query, or until ctx ends.
	Await func(ctx context.Context)
	// StaleIfBlocking: any server may answer a query that blocks.
	StaleIfBlocking bool
	// Volume bounds the bytes per second; nil: no bound. Several loops may share it.
	Volume *rate.Limiter
	// ExcludeFromCapacity: see LoopOptions.
	ExcludeFromCapacity bool
}

// Follow repeats f.Query as a blocking query until ctx ends, and returns ctx's error.
// The rules are in the package comment. Calls of f's functions do not overlap.
func (c *Client) Follow(ctx context.Context, f FollowOptions) error {
	w := followLoop{FollowOptions: f, loop: c.NewLoop(LoopOptions{Remote: f.Query.Datacenter != "" || f.Query.Authority, ExcludeFromCapacity: f.ExcludeFromCapacity})}
	return w.loop.Run(ctx, func(ctx context.Context) error {
		return c.InMode(ctx, func(mode context.Context, oversubscribed bool) error { return w.next(ctx, mode, oversubscribed) })
	}, w.fail)
}

// followLoop is one run of Follow.
type followLoop struct {
	FollowOptions
	loop     *Loop
	filtered bool // ACLs filtered the last answer
	absent   bool // the last answer was 404
	failed   int  // consecutive queries
}

// next sends the next query, when it is time. With Await the mode of the loops counts, until mode
// ends.
func (f *followLoop) next(ctx, mode context.Context, oversubscribed bool) (err error) {
	wait := f.Wait
	if f.BeforeQuery != nil {
		if wait, err = f.BeforeQuery(ctx); err != nil {
			return err
		}
	}
	if f.Await == nil {
		return f.query(ctx, wait)
	}
	if !oversubscribed || f.loop.Index == 0 {
		return f.query(mode, wait)
	}
	waiting, cancel := context.WithTimeout(mode, wait)
	defer cancel()
	if f.Await(waiting); mode.Err() != nil {
		return context.Cause(mode)
	}
	return f.query(ctx, 0)
}

// query sends one query, and reports its result.
func (f *followLoop) query(ctx context.Context, wait time.Duration) (err error) {
	// The query is repeated after a pause.
	defer panics.Contain(panics.Watch, func() { err = panics.Err })
	q := f.Query
	if wait == 0 {
		f.loop.Index = 0
	}
	f.loop.Block(&q.QueryOptions, wait-f.loop.client.Jitter(wait/10))
	q.AllowStale = f.StaleIfBlocking && q.WaitIndex > 0
	buffer := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buffer)
	buffer.Reset() // an answer 404 is not read
	answer, err := f.loop.Get(ctx, q, func(body io.Reader) error {
		buffer.Reset()
		_, err := buffer.ReadFrom(body)
		return err
	})
	if err == nil {
		err = f.process(answer, buffer.Bytes())
	}
	if err != nil {
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

// process applies an answer.
func (f *followLoop) process(a Answer, body []byte) error {
	if err := f.loop.client.Doubt(a); err != nil {
		return err
	}
	// A recursive deletion of a shorter prefix leaves the index of keys below a longer one.
	if a.Index > 0 && a.Index == f.loop.Last && f.loop.Index > 0 && a.FilteredByACL == f.filtered && a.Absent == f.absent {
		return nil // the wait has ended without a change
	}
	a.Forgot = f.loop.Forgot || a.Index > 0 && a.Index < f.loop.Last
	if err := f.Read(a, body); err != nil {
		return err
	}
	f.filtered, f.absent = a.FilteredByACL, a.Absent
	f.loop.Advance(a.Index)
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
