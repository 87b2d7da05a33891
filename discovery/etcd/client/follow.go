package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"sluice/observe/panics"
	"sluice/observe/wake"
)

const (
	answerTimeout    = 5 * time.Second  // of a list, a login, and the start of a watch
	heartbeatEvery   = 15 * time.Second // while nothing changes
	heartbeatTimeout = 3 * time.Second
	secondHeartbeat  = time.Second     // after one that failed or found another number of keys
	relistEvery      = 5 * time.Minute // ± 10 %

	// The delay after an error doubles from firstDelay to maxDelay, ± 50 %.
	firstDelay = 100 * time.Millisecond
	maxDelay   = 5 * time.Second
)

// Range are the keys that begin with Prefix, or one Key.
type Range struct{ Prefix, Key string }

// String describes r.
func (r Range) String() string {
	if r.Key != "" {
		return fmt.Sprintf("key %q", r.Key)
	}
	return fmt.Sprintf("prefix %q", r.Prefix)
}

// has reports whether r has a key.
func (r Range) has(key []byte) bool {
	if r.Key != "" {
		return string(key) == r.Key
	}
	return strings.HasPrefix(string(key), r.Prefix)
}

// maxKeys limits the keys of a range: millions fit in an answer, and as instances take a hundred
// times its memory.
const maxKeys = 100_000

var errTooManyKeys = fmt.Errorf("there are more than %d keys", maxKeys)

// errNotAsked is in errors about an answer with a key that is not in the range, or without any.
var errNotAsked = errors.New("the answer has a key that was not asked for")

// operation returns the key and the options of a query or a watch of r.
func (r Range) operation(options ...clientv3.OpOption) (string, []clientv3.OpOption) {
	if r.Key != "" {
		return r.Key, options
	}
	return r.Prefix, append(options, clientv3.WithPrefix())
}

// Entry is a key with its value.
type Entry struct {
	Value    []byte
	Modified int64 // the revision that last changed it
}

// View is the state of a range at a revision.
type View struct {
	Entries  map[string]Entry // by the whole key
	Revision int64
	Member   string // the address of the member that answered the last list

	// Forgot says that the cluster has lost its state since the View before, or is another
	// one: a backup was restored, or it was created anew. Keys that are missing may be lost.
	Forgot  bool
	Cluster uint64 // its id
}

// Position is how far a cluster was followed. The zero value: none was followed.
type Position struct {
	Cluster  uint64
	Revision int64
}

// FollowOptions configure Follow. Its functions are called from one goroutine.
type FollowOptions struct {
	Range Range
	// After is where an earlier Follow has ended: the first View tells whether the cluster has lost
	// its state since.
	After Position
	// Read gets the view after each change, and again after each heartbeat. It must neither
	// change nor keep v.Entries; the values are never changed. It returns when the next
	// heartbeat must be, at the latest; 0: at the usual time.
	Read func(v View) (next time.Duration)
	// Failed is told why the view may be out of date, once for each attempt.
	Failed func(error)
}

// Follow follows the keys of o.Range until ctx ends, and returns ctx's error.
func (c *Cluster) Follow(ctx context.Context, o FollowOptions) error {
	defer c.keepConnected()()
	f := &follower{cluster: c, options: o, known: o.After.Revision > 0, id: o.After.Cluster, seen: o.After.Revision}
	for retries := 0; ; {
		begin := time.Now()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(begin) > 2*maxDelay {
			retries = 0
		}
		if !errors.Is(err, errAnew) {
			o.Failed(f.explain(err))
		}
		delay := min(firstDelay<<min(retries, 10), maxDelay)
		retries++
		if err := wake.Await(ctx, time.After(delay/2+rand.N(delay))); err != nil {
			return err
		}
	}
}

// errAnew marks the ends of a watch that are no failure of the cluster: the next list is enough.
var errAnew = errors.New("list again")

// follower is one run of Follow.
type follower struct {
	cluster *Cluster
	options FollowOptions

	known bool   // id and seen are set
	view  View   // Forgot is not used
	seen  int64  // the highest revision in an answer: the view's, or of a change of another key
	id    uint64 // of the cluster
}

// follow lists and watches until an error.
func (f *follower) follow(ctx context.Context) (err error) {
	defer panics.Contain(panics.Watch, func() { err = panics.Err }) // it is repeated after a pause
	s, err := f.cluster.connected(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if f.cluster.options.User != "" && mayBeLoggedOut(err) {
			f.cluster.doubt(s)
		}
	}()
	list, err := f.get(ctx, s, answerTimeout)
	if err != nil {
		return err
	}
	list.asked = f.seen
	w := &watch{follower: f, store: s, answers: make(chan answer, 1)}
	w.next = w.adopt(list)
	return w.run(ctx)
}

// answer is the result of a query.
type answer struct {
	header   *etcdserverpb.ResponseHeader
	entries  map[string]Entry // nil if only counted
	count    int64
	member   string
	asked    int64 // the highest revision seen when the query was sent
	err      error
	complete bool // the query was a list
}

// get lists the keys, or only counts them.
func (f *follower) get(ctx context.Context, s store, timeout time.Duration, options ...clientv3.OpOption) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	t := new(trace)
	key, all := f.options.Range.operation(append(options, clientv3.WithLimit(maxKeys+1))...)
	response, err := s.Get(context.WithValue(ctx, traceKey{}, t), key, all...)
	switch {
	case err == nil:
	case t.err != nil && errors.Is(err, context.DeadlineExceeded):
		return answer{}, fmt.Errorf("%w: %s", err, status.Convert(t.err).Message())
	default:
		return answer{}, err
	}
	if response.Header == nil {
		return answer{}, errors.New("the answer has no header")
	}
	if len(response.Kvs) > maxKeys {
		return answer{}, errTooManyKeys
	}
	a := answer{header: response.Header, count: response.Count, entries: make(map[string]Entry, len(response.Kvs))}
	if t.member.Addr != nil {
		a.member = t.member.Addr.String()
	}
	for _, kv := range response.Kvs {
		if !f.options.Range.has(kv.GetKey()) {
			return answer{}, fmt.Errorf("%w: %.200q", errNotAsked, kv.GetKey())
		}
		a.entries[string(kv.Key)] = Entry{Value: kv.Value, Modified: kv.ModRevision}
	}
	return a, nil
}

// adopt makes the answer to a list the view, and passes it on.
func (f *follower) adopt(a answer) (next time.Duration) {
	// Events that came while it was under way may have a higher revision.
	forgot := f.known && (a.header.ClusterId != f.id || a.header.Revision < a.asked || older(f.view.Entries, a.entries))
	if forgot {
		f.seen = a.header.Revision
	}
	f.known, f.id, f.seen = true, a.header.ClusterId, max(f.seen, a.header.Revision)
	f.view = View{Entries: a.entries, Revision: a.header.Revision, Member: cmp.Or(a.member, f.cluster.options.Endpoints), Cluster: f.id}
	v := f.view
	v.Forgot = forgot
	return f.options.Read(v)
}

// older reports whether a key of latest has an older value than before, or another one of the same
// revision: then latest has another history.
func older(before, latest map[string]Entry) bool {
	for key, b := range before {
		n, ok := latest[key]
		if ok && (n.Modified < b.Modified || n.Modified == b.Modified && !bytes.Equal(n.Value, b.Value)) {
			return true
		}
	}
	return false
}

// watch is a follower from a list to the end of its watch.
type watch struct {
	*follower
	store store
	next  time.Duration // wanted until the next heartbeat; 0: any

	answers chan answer // of the query that runs
	asking  bool        // one runs

	failures  int   // consecutive heartbeats without an answer; a lost connection is one
	different int64 // revision of the view if the last heartbeat counted other keys; else 0
}

// run watches until an error.
func (w *watch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	lost := make(chan struct{})
	stop := panics.Start(ctx, panics.Watch, func(ctx context.Context) { w.observe(ctx, lost) })
	defer func() {
		cancel()
		stop()
		if w.asking {
			<-w.answers
		}
	}()
	events, err := w.open(ctx, cancel)
	if err != nil {
		return err
	}
	heartbeat, relist := time.NewTimer(w.pause()), time.NewTimer(relistEvery*9/10+rand.N(relistEvery/5))
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r, ok := <-events:
			if err := w.takeAll(r, ok, events); err != nil {
				return err
			}
			heartbeat.Reset(w.pause())
		case a := <-w.answers:
			w.asking = false
			if err := w.takeAnswer(a); err != nil {
				return err
			}
			heartbeat.Reset(w.pause())
		case <-lost:
			w.failures = max(w.failures, 1)
			w.ask(ctx, w.cluster.heartbeatTimeout, false)
		case <-heartbeat.C:
			w.ask(ctx, w.cluster.heartbeatTimeout, false)
		case <-relist.C:
			relist.Reset(relistEvery*9/10 + rand.N(relistEvery/5))
			w.ask(ctx, answerTimeout, true)
		}
	}
}

// observe sends to lost whenever no member is connected any more, until ctx ends.
func (w *watch) observe(ctx context.Context, lost chan<- struct{}) {
	for w.store.AwaitConnected(ctx, false) {
		select {
		case lost <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if !w.store.AwaitConnected(ctx, true) {
			return
		}
	}
}

// open starts to watch after the view. If the cluster does not confirm it in time, it calls cancel.
func (w *watch) open(ctx context.Context, cancel func()) (clientv3.WatchChan, error) {
	slow := time.AfterFunc(answerTimeout, cancel)
	key, options := w.options.Range.operation(clientv3.WithRev(w.view.Revision + 1))
	events := w.store.Watch(ctx, key, options...) // waits for the confirmation
	if !slow.Stop() {
		return nil, fmt.Errorf("watch: %w", context.DeadlineExceeded)
	}
	return events, nil
}

// pause returns the time until the next heartbeat.
func (w *watch) pause() time.Duration {
	switch {
	case w.failures > 0 || w.different > 0:
		return secondHeartbeat
	case w.next > 0:
		return min(w.next, heartbeatEvery)
	}
	return heartbeatEvery
}

// maxResponses limits the responses of a watch that are passed on together.
const maxResponses = 100

// takeAll takes a response and all that have arrived behind it, and passes on one view.
func (w *watch) takeAll(r clientv3.WatchResponse, ok bool, more clientv3.WatchChan) error {
	before := w.view.Revision
	err := w.take(r, ok)
	for n := 1; err == nil && n < maxResponses; n++ {
		select {
		case r, ok := <-more:
			err = w.take(r, ok)
		default:
			n = maxResponses // none waits
		}
	}
	if w.view.Revision > before && err != errTooManyKeys {
		w.failures, w.different = 0, 0
		w.next = w.options.Read(w.view)
	}
	return err
}

// take applies a response to the view.
func (w *watch) take(r clientv3.WatchResponse, ok bool) error {
	if !ok {
		return errors.New("the watch has ended")
	}
	if err := r.Err(); err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) {
			return fmt.Errorf("%w: %w", errAnew, err)
		}
		return err
	}
	if r.Header.GetClusterId() != w.id {
		return fmt.Errorf("%w: another cluster answers", errAnew)
	}
	latest := w.view.Revision
	for _, e := range r.Events {
		if e.Kv == nil || !w.options.Range.has(e.Kv.Key) {
			return fmt.Errorf("%w: %.200q", errNotAsked, e.Kv.GetKey())
		}
		if e.Kv.ModRevision <= w.view.Revision {
			continue // a list has it
		}
		latest = e.Kv.ModRevision
		if e.Type == clientv3.EventTypeDelete {
			delete(w.view.Entries, string(e.Kv.Key))
		} else {
			w.view.Entries[string(e.Kv.Key)] = Entry{Value: e.Kv.Value, Modified: e.Kv.ModRevision}
		}
	}
	if len(w.view.Entries) > maxKeys {
		return errTooManyKeys
	}
	w.view.Revision = latest
	w.seen = max(w.seen, latest, r.Header.GetRevision())
	return nil
}

// ask starts a query, if none runs: a list, or a heartbeat, which only counts.
func (w *watch) ask(ctx context.Context, timeout time.Duration, list bool) {
	if w.asking {
		return
	}
	w.asking = true
	asked := w.seen
	var options []clientv3.OpOption
	if !list {
		options = append(options, clientv3.WithCountOnly())
	}
	go func() { // run waits for it
		a := answer{err: panics.Err}
		defer func() { w.answers <- a }()
		defer panics.Contain(panics.Watch, nil)
		got, err := w.get(ctx, w.store, timeout, options...)
		got.asked, got.complete, got.err = asked, list, err
		a = got
	}()
}

// takeAnswer takes the answer to ask.
func (w *watch) takeAnswer(a answer) error {
	if a.err != nil {
		if w.failures++; w.failures > 1 || Refused(a.err) {
			return a.err
		}
		return nil
	}
	w.failures = 0
	switch {
	case a.header.ClusterId != w.id:
		return fmt.Errorf("%w: another cluster answers", errAnew)
	case a.header.Revision < a.asked:
		return fmt.Errorf("%w: the cluster is at revision %d, it was at %d", errAnew, a.header.Revision, a.asked)
	}
	w.seen = max(w.seen, a.header.Revision)
	switch {
	case a.complete && a.header.Revision >= w.view.Revision:
		w.next = w.adopt(a)
		return nil
	case a.count == int64(len(w.view.Entries)):
		w.different = 0
	case w.different == w.view.Revision:
		return fmt.Errorf("%w: the watch lacks changes, of %d keys it has %d", errAnew, a.count, len(w.view.Entries))
	default: // a change may be on its way
		w.different = w.view.Revision
		return nil
	}
	w.next = w.options.Read(w.view)
	return nil
}
