package h3load

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// A Load is requests that clients repeat.
type Load struct {
	Server string // "host:port"
	Path   string
	Body   int64 // bytes of the body of the right answer
	Conns  int   // concurrent connections
	// Streams is the number of concurrent requests of each connection; 0: each connection has one
	// request, and then the next connection is opened.
	Streams int
}

// A Result is what the clients saw.
type Result struct {
	Requests int64 // with right answers
	Failed   int64 // without a whole answer
	Wrong    int64 // answers with another status or length
	Late     int64 // without a whole answer in time
	Took     time.Duration
	Times    []time.Duration // of right answers
	Reason   error           // of one of those that were not answered right; nil: there is none
}

// count counts a request that began at a time, or a connection that failed.
func (r *Result) count(begin time.Time, err error) {
	var wrong *wrongAnswer
	switch {
	case err == nil:
		r.Requests++
		r.Times = append(r.Times, time.Since(begin))
		return
	case errors.As(err, &wrong):
		r.Wrong++
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		r.Late++
	default:
		r.Failed++
	}
	r.Reason = err
}

func (r *Result) add(of Result) {
	r.Requests += of.Requests
	r.Failed += of.Failed
	r.Wrong += of.Wrong
	r.Late += of.Late
	r.Times = append(r.Times, of.Times...)
	if of.Reason != nil {
		r.Reason = of.Reason
	}
}

// inBytes is the size of a buffer for answers.
const inBytes = 32 << 10

var loopback = net.IPv4(127, 0, 0, 1)

// Run repeats requests for d, and waits for the answers to the last. An error is of the load itself.
func (l Load) Run(ctx context.Context, d time.Duration) (Result, error) {
	r, err := newRequest(l.Server, l.Path, l.Body)
	if err != nil {
		return Result{}, err
	}
	clients := make([]*client, l.Conns)
	for i := range clients {
		if clients[i], err = newClient(loopback, l.Server); err != nil {
			return Result{}, err
		}
		defer clients[i].close()
	}
	conns, result := make([]*quic.Conn, l.Conns), Result{}
	if l.Streams > 0 {
		result = dialAll(ctx, clients, conns)
	}
	var (
		mu sync.Mutex // guards result
		wg sync.WaitGroup
	)
	begin := time.Now()
	over := func() bool { return ctx.Err() != nil || time.Since(begin) >= d }
	work := func(f func(in *bufio.Reader) Result) {
		wg.Go(func() {
			of := f(bufio.NewReaderSize(nil, inBytes))
			mu.Lock()
			defer mu.Unlock()
			result.add(of)
		})
	}
	for i, c := range clients {
		if l.Streams == 0 {
			work(func(in *bufio.Reader) Result { return r.repeatDials(ctx, c, in, over) })
			continue
		}
		for range l.Streams {
			work(func(in *bufio.Reader) Result { return r.repeat(conns[i], in, over) })
		}
	}
	wg.Wait()
	result.Took = time.Since(begin)
	for _, c := range conns {
		if c != nil {
			hangUp(c)
		}
	}
	return result, ctx.Err()
}

// dialAll opens a connection with each client, and returns the failures.
func dialAll(ctx context.Context, clients []*client, conns []*quic.Conn) Result {
	var (
		mu     sync.Mutex // guards result
		result Result
		wg     sync.WaitGroup
	)
	for i, c := range clients {
		wg.Go(func() {
			begin := time.Now()
			var err error
			if conns[i], err = c.dial(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				result.count(begin, err)
			}
		})
	}
	wg.Wait()
	return result
}

// repeat repeats a request on a connection until its end; nil: there is none.
func (r *request) repeat(conn *quic.Conn, in *bufio.Reader, over func() bool) (result Result) {
	for conn != nil && conn.Context().Err() == nil && !over() {
		begin := time.Now()
		result.count(begin, r.exchange(conn, in))
	}
	return result
}

// repeatDials repeats a request, each on a connection of its own.
func (r *request) repeatDials(ctx context.Context, c *client, in *bufio.Reader, over func() bool) (result Result) {
	for !over() {
		begin := time.Now()
		conn, err := c.dial(ctx)
		if err == nil {
			err = r.exchange(conn, in)
			hangUp(conn)
		}
		result.count(begin, err)
	}
	return result
}
