package consul

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"
)

// answerGrace is how long after the wait of a query its answer may arrive.
const answerGrace = 10 * time.Second

// repeatAfter is how long a query that does not block waits for its answer the first time.
const repeatAfter = time.Second

// Query is a query to an agent.
type Query struct {
	// The client sets the token. A WaitIndex above 0 makes the query block for up to WaitTime.
	api.QueryOptions

	// Path is the path of a list or an object, without "/v1/"; names in it are escaped.
	// Alternatively, Send is the call of hashicorp/consul/api that sends the query.
	Path string
	Send func(*api.Client, *api.QueryOptions) error

	// View says that the agent may answer from a view, which a stream from the servers
	// updates. It does so for the instances of a service.
	View bool

	// InTurn says that the query, if it does not block, waits while 16 others of the client are
	// in flight. All watches send it when they start and after an outage, and those of other
	// replicas do so at the same time: the servers would answer nobody before all, also no
	// probe. A query without InTurn does not wait for those that wait.
	InTurn bool

	// MayBeAbsent says that an answer 404 is no error: there is nothing at Path, or Send
	// finds nothing. Its body is not read.
	MayBeAbsent bool

	// WithoutIndex says that answers have no header of a blocking endpoint. Answer has the
	// agent only.
	WithoutIndex bool

	// Authority: the mesh's certificate authority answers, through the agent. So an error 5xx may
	// not be the agent's fault. An answer is not doubtful by its age or without a header about a
	// leader: it is a certificate, which has its own end.
	Authority bool

	// Needs are the permissions that a token needs, for the error of an answer 403.
	Needs string

	keys *keys // the query is about them; nil: about something else
}

// Answer is the header of an answer.
// https://developer.hashicorp.com/consul/api-docs/api-structure
type Answer struct {
	URL       string // of the agent
	Anonymous bool   // without a token
	Absent    bool   // the answer is 404, and Query.MayBeAbsent

	Index         uint64        // X-Consul-Index
	KnownLeader   bool          // X-Consul-KnownLeader; always false with Streaming
	LastContact   time.Duration // X-Consul-LastContact: the age of the server's data
	FilteredByACL bool          // X-Consul-Results-Filtered-By-ACLs; with Streaming always false
	DefaultDeny   bool          // X-Consul-Default-ACL-Policy is deny
	Age           time.Duration // in the agent's cache: since its fetch, or since updates fail
	Streaming     bool          // X-Consul-Query-Backend: the agent answered from a view

	// Forgot: Consul may have lost its state, and what is missing, since Follow's last answer.
	Forgot bool

	early  bool // the wait was not over, and the index has not changed
	agent  *agent
	maxAge time.Duration // in the agent's cache: since its fetch, or since updates fail
	keys   *keys         // of the query
}

// Get sends q to the agent in use and calls read with the body of an answer 200. It
// waits while the number of queries in flight is at its limit, and fails if the agent does
// meanwhile. After an answer 403 it repeats q once if the token has changed.
//
// While another agent comes into use, or the same one recovers, it repeats q unless q
// has an index, which another answer may not know; read must allow that.
//
// The error is the cause of the end of ctx or of a cancellation, a missing answer 10 s
// after the query's wait, or one that StatusCode, Denied and Refused classify. With an
// error the Answer has the agent only. Doubt reports whether the answer is doubtful.
func (c *Client) Get(ctx context.Context, q Query, read func(io.Reader) error) (Answer, error) {
	for {
		answer, err := c.get(ctx, q, time.Time{}, read)
		if q.WaitIndex > 0 || !canceledByAgents(err) {
			return answer, err
		}
	}
}

// get is Get for a loop whose last query failed at a time; zero: it succeeded.
func (c *Client) get(ctx context.Context, q Query, failed time.Time, read func(io.Reader) error) (Answer, error) {
	blocks := q.WaitIndex > 0
	kind := q.kind()
	if err := c.gate.enter(ctx, kind); err != nil {
		return Answer{}, err
	}
	long := false
	defer func() { c.gate.leave(kind, long) }()
	if blocks {
		q.WaitTime, long = c.gate.shorten(q.WaitTime, q.View)
		c.bypassView(&q, failed)
	}
	view := q.View && blocks && q.Near == ""
	agent, ctx, done := c.agents.lease(ctx, view)
	defer done()
	if blocks && !view {
		ends := time.Now().Add(q.WaitTime + q.WaitTime/16)
		defer func() {
			if ctx.Err() != nil {
				c.gate.recordContinued(&agent.multiplexed, ends)
				agent.leaveShared()
			}
		}()
	}
	q.Token = c.token.current()
	begun := time.Now()
	answer, err := agent.get(ctx, q, read)
	if Forbidden(err) {
		if latest := c.token.current(); latest != q.Token {
			q.Token = latest
			answer, err = agent.get(ctx, q, read)
		}
	}
	answer.early = blocks && answer.Index == q.WaitIndex && !answer.Streaming && !q.Authority &&
		time.Since(begun) < q.WaitTime.Truncate(time.Millisecond) // as it is sent
	answer.URL, answer.agent, answer.Anonymous, answer.maxAge, answer.keys = agent.url, agent, q.Token == "", q.MaxAge, q.keys
	return answer, err
}

func (q *Query) kind() queryKind {
	switch {
	case q.WaitIndex > 0:
		return kindBlocking
	case q.InTurn:
		return kindInTurn
	}
	return kindNonBlocking
}

// Confirm sends q, without blocking, in the mode "consistent": the leader first confirms that it
// still leads. It returns the body of an answer that is not doubtful.
func (c *Client) Confirm(ctx context.Context, q Query) (a Answer, body []byte, err error) {
	q.RequireConsistent = true
	return c.whole(ctx, q)
}

// whole sends q, and returns the body of the answer, which is not doubtful.
func (c *Client) whole(ctx context.Context, q Query) (a Answer, body []byte, err error) {
	a, err = c.Get(ctx, q, func(r io.Reader) (err error) {
		body, err = io.ReadAll(r)
		return err
	})
	if err == nil {
		err = c.Doubt(a)
	}
	return a, body, err
}

// Doubt returns why a is doubtful, or nil: the agent knows no leader, does not answer
// probes, or its cache has not been updated for 3 s.
func (c *Client) Doubt(a Answer) error {
	switch {
	case !a.KnownLeader && !a.Streaming:
		return errNoLeader
	case a.Streaming:
		return c.agents.doubt(a.agent)
	case a.Age >= cancelAfter && a.Age > a.maxAge:
		return fmt.Errorf("the agent's cache has not been updated for %v", a.Age)
	}
	return nil
}

// get sends one query.
func (a *agent) get(ctx context.Context, q Query, read func(io.Reader) error) (Answer, error) {
	limited, cancel := limit(ctx, q.QueryOptions)
	defer cancel()
	var (
		header  http.Header
		absent  bool
		readErr error
	)
	err := a.repeat(limited, q.QueryOptions, func(ctx context.Context) (err error) {
		readErr = nil
		options := q.QueryOptions.WithContext(context.WithValue(ctx, askingKey{}, asking{q, func(r *http.Response) error {
			header, absent = r.Header, r.StatusCode == http.StatusNotFound
			if !absent {
				readErr = read(r.Body)
			}
			return nil
		}}))
		if q.Send != nil {
			err = q.Send(a.api, options)
		} else {
			var null any
			_, err = a.api.Raw().Query("/v1/"+q.Path, &null, options)
		}
		return cmp.Or(err, readErr)
	})
	switch {
	case ctx.Err() != nil:
		return Answer{}, context.Cause(ctx)
	case limited.Err() != nil:
		err = context.Cause(limited)
	case err == nil && q.WithoutIndex:
		return Answer{}, nil
	case err == nil:
		answer, err := parseHeader(header)
		if err != nil {
			return Answer{}, fmt.Errorf("consul %s: %w", a.url, err)
		}
		if answer.KnownLeader && !answer.Streaming && answer.Age == 0 {
			a.answeredByLeader.Add(1)
		}
		answer.Absent = absent
		if q.Authority && header.Get("X-Consul-KnownLeader") == "" {
			answer.KnownLeader, answer.Age = true, 0
		}
		return answer, nil
	}
	return Answer{}, fmt.Errorf("consul %s: %w", a.url, explain(err, q.Needs))
}

// repeat calls send. While a query that does not block has no answer, it calls send again
// after repeatAfter, and then after twice the previous time: an agent may pass a query to a
// server that holds it for seconds, because it does not know the new leader, while
// another server answers at once. It does not repeat if there are many loops.
func (a *agent) repeat(ctx context.Context, q api.QueryOptions, send func(context.Context) error) error {
	if q.WaitIndex > 0 || !a.meter.gate.fewLoops() {
		return send(ctx)
	}
	for timeout := repeatAfter; ; timeout *= 2 {
		limited, cancel := context.WithTimeout(ctx, timeout)
		err := send(limited)
		late := limited.Err() != nil
		cancel()
		if err == nil || !late || ctx.Err() != nil {
			return err
		}
	}
}

// limit returns a context for a query, which ends when its answer is overdue.
func limit(ctx context.Context, q api.QueryOptions) (context.Context, context.CancelFunc) {
	timeout := answerGrace
	if q.WaitIndex > 0 {
		// "A small random amount of additional wait time is added to the
		// supplied maximum wait time [...] up to wait / 16."
		// https://developer.hashicorp.com/consul/api-docs/features/blocking
		timeout += q.WaitTime + q.WaitTime/16
	}
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
}

// parseHeader parses the header of an answer of a blocking endpoint.
func parseHeader(h http.Header) (Answer, error) {
	index, err := strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return Answer{}, fmt.Errorf("X-Consul-Index is %q: the answer is not Consul's", h.Get("X-Consul-Index"))
	}
	age := uint64(0)
	if h.Get("X-Cache") == "HIT" {
		age, _ = strconv.ParseUint(h.Get("Age"), 10, 32)
	}
	lastContact, _ := strconv.ParseUint(h.Get("X-Consul-LastContact"), 10, 32) // ms; for display
	return Answer{
		Index:         index,
		KnownLeader:   h.Get("X-Consul-KnownLeader") == "true",
		Age:           time.Duration(age) * time.Second,
		LastContact:   time.Duration(lastContact) * time.Millisecond,
		FilteredByACL: h.Get("X-Consul-Results-Filtered-By-ACLs") == "true",
		DefaultDeny:   h.Get("X-Consul-Default-ACL-Policy") == "deny",
		Streaming:     h.Get("X-Consul-Query-Backend") == api.QueryBackendStreaming,
	}, nil
}

const (
	// viewLag is how long after a failure the views of an agent may be out of date. A
	// view follows a stream from a server. When the stream fails, the agent opens
	// another one after a delay of up to a minute, and answers from the old view
	// meanwhile (submatview.defaultWaiter in Consul's source).
	viewLag = 70 * time.Second

	// bypassWaitEach, times the number of loops, but at least bypassWaitMin, is how long a query
	// that bypasses the views blocks: fifty queries a second for all loops. Consul continues such
	// a query after its cancellation and counts its connection until the wait is over, so that
	// further failures leave few connections. A query that a view answers ends at once.
	bypassWaitEach = 20 * time.Millisecond
	bypassWaitMin  = 2 * time.Second
)

// bypassView makes a server answer a blocking query, with a short wait, if the agent's
// view may be out of date: after an outage of the agent or, if a view may answer, a
// failed query. A server answers at once when there is a change.
func (c *Client) bypassView(q *Query, failed time.Time) {
	now := time.Now()
	if now.Sub(c.agents.lastOutage()) > viewLag && (!q.View || now.Sub(failed) > viewLag) {
		return
	}
	if q.View {
		q.UseCache = false
		q.Near = cmp.Or(q.Near, "_agent") // a view cannot sort by distance
	}
	_, loops := c.Capacity()
	q.WaitTime = min(q.WaitTime, max(bypassWaitMin, time.Duration(loops)*bypassWaitEach))
}
