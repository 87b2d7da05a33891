package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"
)

// answer is what a feed got.
type answer struct {
	body     *bytes.Buffer // until take returns
	index    uint64
	filtered bool // by ACLs
}

// feed follows what Consul answers for a path, with blocking queries by the same
// rules as a watch.
type feed struct {
	client    *Client
	path      string // without "/v1/"
	options   api.QueryOptions
	wait      time.Duration      // how long a query blocks while nothing changes
	take      func(answer) error // reads an answer that may have changed
	note      func(error)        // is told how each query ended, except that one failure says little
	regressed func()             // is told that Consul has lost its state
	volume    *rate.Limiter      // of the bytes that it reads, perhaps with others; nil: no bound

	index    uint64 // for the next query; 0: it does not block
	last     uint64 // of the last answer
	filtered bool   // the last answer was, by ACLs
	failed   int    // queries in a row
	length   int    // of the last answer, in bytes
	tries
}

func (v *overview) newFeed(path string, take func(answer) error) *feed {
	f := &feed{client: v.client, path: path, options: v.scope.options(), wait: v.wait, take: take, regressed: v.allChanged, volume: v.volume,
		tries: tries{agents: v.client.agents, remote: v.scope.datacenter != ""}}
	f.note = func(err error) {
		if err != nil {
			err = fmt.Errorf("watch all services: %w", err)
		}
		v.note(f, err)
	}
	return f
}

// options are those of every query of s.
func (s scope) options() api.QueryOptions {
	return api.QueryOptions{Datacenter: s.datacenter, Namespace: s.namespace, Partition: s.partition}
}

// run follows until ctx ends.
func (f *feed) run(ctx context.Context) {
	limiter := rate.NewLimiter(queriesPerSecond, queryBurst)
	for limiter.Wait(ctx) == nil {
		again := f.agents.retry()
		err := f.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		if delay := f.next(ctx, err); delay > 0 && f.pause(ctx, delay, again) != nil {
			return
		}
	}
}

// next tells note how a query ended, and returns how long to wait
// before the next one. One failure says little: the next query, which does not
// block, finds what may have been missed.
func (f *feed) next(ctx context.Context, err error) time.Duration {
	if err == nil {
		f.succeeded()
		f.failed = 0
		f.note(nil)
		return f.pace(time.Now())
	}
	f.index = 0
	if f.elsewhere(ctx, err) {
		return f.agents.upTo(moveSpread)
	}
	if f.failed++; f.failed > 1 || unavailable(err) {
		f.note(err)
	}
	return f.backoff.next(err, f.agents.upTo)
}

// pace returns how long to wait after an answer, given its length.
func (f *feed) pace(now time.Time) time.Duration {
	if f.volume == nil {
		return 0
	}
	return f.volume.ReserveN(now, min(f.length, f.volume.Burst())).DelayFrom(now)
}

// poll asks once.
func (f *feed) poll(ctx context.Context) error {
	q := f.options
	if q.WaitIndex = f.index; f.index > 0 {
		q.WaitTime = f.wait - f.agents.upTo(f.wait/10)
		if now := time.Now(); now.Sub(f.agents.trouble()) <= viewsLag {
			q.WaitTime = f.client.afterTrouble(q.WaitTime)
		}
	}
	var err error
	f.asked, err = f.client.get(ctx, f.path, q, func(a Answer, body *bytes.Buffer) error {
		f.length = body.Len()
		if a.Index > 0 && a.Index == f.last && f.index > 0 && a.FilteredByACL == f.filtered {
			return nil // the wait is over
		}
		if err := f.take(answer{body, a.Index, a.FilteredByACL}); err != nil {
			return err
		}
		f.filtered = a.FilteredByACL
		if a.Index < f.last {
			f.regressed()
			f.last, f.index = a.Index, 0
		} else {
			f.last, f.index = a.Index, max(a.Index, 1)
		}
		return nil
	})
	return err
}

// get asks for path, without "/v1/", when the gate lets it, and has read read
// the answer, whose body is valid until it returns, if it is one of a Consul that knows a leader. It returns which agent
// was asked.
func (c *Client) get(ctx context.Context, path string, q api.QueryOptions, read func(Answer, *bytes.Buffer) error) (*agent, error) {
	blocks := q.WaitIndex > 0
	if err := c.gate.enter(ctx, blocks); err != nil {
		return nil, err
	}
	defer c.gate.leave(blocks)
	agent, _, err := c.send(ctx, false, func(ctx context.Context, a *agent, token string) error {
		q.Token = token
		return a.get(ctx, path, q, read)
	})
	return agent, err
}

// get sends one query.
func (a *agent) get(ctx context.Context, path string, q api.QueryOptions, read func(Answer, *bytes.Buffer) error) error {
	limited, cancel := limit(ctx, q)
	defer cancel()
	var null any
	_, err := a.api.Raw().Query("/v1/"+path, &null, q.WithContext(withBody(limited, func(h http.Header, body io.Reader) error {
		answer, err := parseHeader(h)
		if err != nil {
			return err
		}
		if !answer.KnownLeader {
			return errNoLeader
		}
		buffer := bodies.Get().(*bytes.Buffer)
		defer bodies.Put(buffer)
		buffer.Reset()
		if _, err := buffer.ReadFrom(body); err != nil {
			return err
		}
		return read(answer, buffer)
	})))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case limited.Err() != nil:
		err = context.Cause(limited)
	}
	return fmt.Errorf("consul %s: %s: %w", a.url, path, explain(err, "service:read and node:read for what it is to see"))
}

// bodies are buffers for answers, which may be long.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

var errNoLeader = errors.New("the agent knows no leader")
