package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/discovery"
)

// answerGrace is how long an answer may take beyond the time for which the
// query asked Consul to wait.
const answerGrace = 10 * time.Second

// Answer is what Consul says of a service at one moment.
type Answer struct {
	Instances []discovery.Instance // normalised
	Skipped   []Skipped            // entries that cannot be instances
	Listed    int                  // entries in the answer

	Index         uint64        // X-Consul-Index
	KnownLeader   bool          // X-Consul-KnownLeader; always false with Streaming
	LastContact   time.Duration // X-Consul-LastContact: how old the answering server's data may be
	FilteredByACL bool          // X-Consul-Results-Filtered-By-ACLs: the token may not see everything; always false with Streaming
	DefaultDeny   bool          // X-Consul-Default-ACL-Policy is deny
	Age           time.Duration // of an answer from the agent's cache: since it was fetched or, if the cache is kept up to date, since that fails
	Streaming     bool          // X-Consul-Query-Backend: the agent answered from its materialized view

	nodes     []string      // of all entries, sorted
	ttl       time.Duration // of a prepared query; 0: it has none
	agent     *agent        // that was asked
	anonymous bool          // without a token
}

// Skipped is an entry of an answer that cannot be an instance, and why.
type Skipped struct {
	ID, Node string
	Why      string
}

// Health asks once, without blocking, for all instances of o.Service, or for
// the result of o.PreparedQuery. Of several data centres it gives the answer of
// the one that a source would use that begins now.
func (c *Client) Health(ctx context.Context, o ServiceOptions) (Answer, error) {
	if err := c.gate.enter(ctx, false); err != nil {
		return Answer{}, err
	}
	defer c.gate.leave(false)
	o = o.withDefaults()
	if len(o.Datacenters) == 0 || o.PreparedQuery != "" {
		return c.query(ctx, &o, api.QueryOptions{})
	}
	var best Answer
	most, firstErr := -1, error(nil)
	for _, o.Datacenter = range o.Datacenters {
		answer, err := c.query(ctx, &o, api.QueryOptions{})
		if err != nil {
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		n := serving(answer.Instances)
		if n >= o.MinHealthy {
			return answer, nil
		}
		if n > most {
			best, most = answer, n
		}
	}
	if most < 0 {
		return Answer{}, firstErr
	}
	return best, nil
}

// query asks the agent in use for the instances of o.Service. Q has what is
// particular to this query; its wait matters if it has an index. It fails with
// the cause of ctx's end, with that for which the agent was given up, or when the
// answer does not come within the wait and a grace. The answer tells which agent
// was asked also beside an error.
func (c *Client) query(ctx context.Context, o *ServiceOptions, q api.QueryOptions) (Answer, error) {
	var answer Answer
	view := q.WaitIndex > 0 && o.Near == ""
	agent, token, err := c.send(ctx, view, func(ctx context.Context, a *agent, token string) (err error) {
		q.Token = token
		answer, err = a.health(ctx, o, q)
		return err
	})
	answer.agent, answer.anonymous = agent, token == ""
	return answer, err
}

// send has send ask the agent in use, with the present token, and again if the
// token turns out to have been replaced while the query waited. It returns which
// agent was asked, and with which token. View is as for lease.
func (c *Client) send(ctx context.Context, view bool, send func(ctx context.Context, a *agent, token string) error) (*agent, string, error) {
	agent, ctx, done := c.agents.lease(ctx, view)
	defer done()
	token := c.token.current()
	err := send(ctx, agent, token)
	if Forbidden(err) {
		if now := c.token.current(); now != token {
			token = now
			err = send(ctx, agent, token)
		}
	}
	return agent, token, err
}

// Forbidden reports whether err is Consul's answer 403: the token is not valid,
// or lacks a permission.
func Forbidden(err error) bool {
	status := (*statusError)(nil)
	return errors.As(err, &status) && status.code == http.StatusForbidden
}

// health sends one query.
func (a *agent) health(ctx context.Context, o *ServiceOptions, q api.QueryOptions) (Answer, error) {
	limited, cancel := limit(ctx, q)
	defer cancel()

	if !q.RequireConsistent {
		q.AllowStale = o.Consistency == ConsistencyStale
		q.RequireConsistent = o.Consistency == ConsistencyConsistent
		q.UseCache = o.Cached && !q.RequireConsistent
	}
	if o.PreparedQuery != "" {
		// Nothing keeps a result in the agent's cache up to date, for three days.
		q.MaxAge = o.Poll
	}
	q.Filter = o.Filter
	q.Datacenter = o.Datacenter
	q.Near = o.Near
	q.Namespace = o.Namespace
	q.Partition = o.Partition
	q.Peer = o.Peer
	var (
		entries []serviceEntry
		ttl     time.Duration
		header  http.Header
	)
	err := a.insist(limited, q, func(ctx context.Context) (err error) {
		entries, ttl, header, err = a.entries(ctx, o, q)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return Answer{}, context.Cause(ctx)
	case limited.Err() != nil:
		return Answer{}, fmt.Errorf("consul %s: %w", a.url, context.Cause(limited))
	case err != nil:
		return Answer{}, fmt.Errorf("consul %s: %w", a.url, explain(err, permissions(o)))
	case entries == nil: // null: what decodes to nothing is not a list of nothing
		return Answer{}, fmt.Errorf("consul %s: the answer is no list of instances", a.url)
	}
	answer, err := parseHeader(header)
	if err != nil {
		return Answer{}, fmt.Errorf("consul %s: %w", a.url, err)
	}
	answer.Listed = len(entries)
	answer.nodes = nodesOf(entries)
	answer.ttl = ttl
	answer.Instances, answer.Skipped = instances(entries, o)
	return answer, nil
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

// nodesOf returns the names of the nodes of entries, sorted.
func nodesOf(entries []serviceEntry) []string {
	nodes := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Node != nil {
			nodes = append(nodes, e.Node.Node)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// entries asks for what lists instances, and for how long a prepared query says
// that its result holds.
func (a *agent) entries(ctx context.Context, o *ServiceOptions, q api.QueryOptions) (entries []serviceEntry, ttl time.Duration, header http.Header, err error) {
	var readErr error
	ctx = withBody(ctx, func(h http.Header, body io.Reader) error {
		header = h
		if o.PreparedQuery == "" {
			entries, readErr = readEntries(body)
			return nil
		}
		var result executed
		result, readErr = readExecuted(body)
		entries = result.Nodes
		ttl, _ = time.ParseDuration(result.DNS.TTL) // Consul checks it
		return nil
	})
	if o.PreparedQuery == "" {
		_, _, err = a.api.Health().ServiceMultipleTags(o.Service, o.Tags, false, q.WithContext(ctx))
	} else {
		_, _, err = a.api.PreparedQuery().Execute(o.PreparedQuery, q.WithContext(ctx))
	}
	return entries, ttl, header, cmp.Or(err, readErr)
}

// parseHeader reads the header fields that every answer of a blocking endpoint
// has. https://developer.hashicorp.com/consul/api-docs/api-structure
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

// explain puts an answer that is not 200 in words that say what to do, given the
// permissions that the query needs.
func explain(err error, permissions string) error {
	var status api.StatusError
	if !errors.As(err, &status) {
		return err
	}
	words := fmt.Sprintf("%d %s", status.Code, http.StatusText(status.Code))
	switch status.Code {
	case http.StatusForbidden:
		words = fmt.Sprintf("403 Forbidden: the token is not valid, or lacks %s", permissions)
	case http.StatusTooManyRequests:
		words = "429 Too Many Requests: the agent limits connections or requests of this client"
	}
	return &statusError{status.Code, refuses(status), fmt.Sprintf("%s (%s)", words, OneLine(status.Body))}
}

// permissions names what a token needs to see o's instances.
func permissions(o *ServiceOptions) string {
	if o.PreparedQuery != "" {
		return fmt.Sprintf("query:read for %q (if the query has no token of its own), service:read for its service and node:read for its nodes", o.PreparedQuery)
	}
	return fmt.Sprintf("service:read for %q and node:read for its nodes", o.Service)
}

// statusError is an HTTP status other than 200.
type statusError struct {
	code    int
	refused bool // for what was asked, or by whom
	words   string
}

func (e *statusError) Error() string { return e.words }

// Is makes a refusal match discovery.ErrRefused.
func (e *statusError) Is(target error) bool { return target == discovery.ErrRefused && e.refused }

// refusal is an error that matches discovery.ErrRefused.
type refusal string

func (r refusal) Error() string { return string(r) }

// Is implements what errors.Is looks for.
func (r refusal) Is(target error) bool { return target == discovery.ErrRefused }

// refuses reports whether a status tells of the query, or of who sends it, and not
// of how Consul fares. A filter that cannot be gets 500, with the words of
// hashicorp/go-bexpr.
func refuses(status api.StatusError) bool {
	switch {
	case status.Code == http.StatusTooManyRequests:
		return false
	case status.Code < http.StatusInternalServerError:
		return true
	}
	return strings.Contains(status.Body, "boolean expression evaluator") ||
		strings.Contains(status.Body, `Selector "`) && strings.Contains(status.Body, "is not valid")
}
