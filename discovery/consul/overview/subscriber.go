package overview

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Overviews are the overviews of a client, one per scope with subscribers. It is safe
// for concurrent use.
type Overviews struct {
	client *consul.Client
	log    zerolog.Logger
	count  atomic.Int64 // of overviews

	mu  sync.Mutex // guards the field below
	all map[Scope]*overview
}

// New returns overviews of client.
func New(client *consul.Client, log zerolog.Logger) *Overviews {
	return &Overviews{client: client, log: log, all: make(map[Scope]*overview)}
}

// Subscriber is notified of changes of one service. It is not safe for concurrent use.
type Subscriber struct {
	overview *overview
	service  string   // in lower case: Consul ignores the case of names
	news     wake.One // the service may have changed
	reported bool     // Wait has returned the current error

	// The mu of overview guards the fields below.

	nodes   []string  // with instances of the service, sorted
	changed time.Time // when the instances last changed
	direct  bool      // queries for the service may block
}

// Subscribe returns a subscriber for a service. The first one of a scope starts an
// overview, whose queries block for wait without a change; the last one ends it. The
// caller calls Leave.
func (o *Overviews) Subscribe(in Scope, service string, wait time.Duration) *Subscriber {
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.all[in]
	if v == nil {
		v = o.start(in, wait)
		o.all[in] = v
		o.count.Add(1)
	}
	s := &Subscriber{overview: v, service: strings.ToLower(service), news: wake.NewOne()}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.subscribers[s.service] == nil {
		v.subscribers[s.service] = make(map[*Subscriber]bool)
	}
	v.subscribers[s.service][s] = true
	v.count++
	return s
}

func (o *Overviews) start(in Scope, wait time.Duration) *overview {
	v := &overview{
		overviews:   o,
		client:      o.client,
		scope:       in,
		wait:        wait,
		volume:      rate.NewLimiter(volumeRate, volumeBurst),
		reads:       make(chan struct{}, Queries),
		poke:        wake.NewOne(),
		subscribers: make(map[string]map[*Subscriber]bool),
		waiting:     make(map[*Subscriber]bool),
		behind:      make(map[string]map[string]bool),
		nodes:       make(map[string]*node),
		lists:       make(map[string]error),
	}
	ctx, end := context.WithCancel(context.Background())
	v.end = end
	v.running.Go(func() {
		defer panics.Contain(panics.Watch, nil)
		v.run(ctx)
	})
	return v
}

// Leave ends s. The last subscriber ends the overview and waits for it.
func (s *Subscriber) Leave() {
	if s.leave() {
		s.overview.end()
		s.overview.running.Wait()
	}
}

// leave removes s, and the overview with the last one.
func (s *Subscriber) leave() (last bool) {
	v, o := s.overview, s.overview.overviews
	o.mu.Lock()
	defer o.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.subscribers[s.service], s)
	if len(v.subscribers[s.service]) == 0 {
		delete(v.subscribers, s.service)
	}
	v.endDirectLocked(s)
	v.grantDirectLocked(s)
	v.count--
	if last = v.count == 0; last {
		delete(o.all, v.scope)
		o.count.Add(-1)
	}
	return last
}

// Subscribers returns the number of subscribers, and how many of them are direct.
func (o *Overviews) Subscribers() (all, direct int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range o.all {
		v.mu.Lock()
		all += v.count
		direct += v.direct
		v.mu.Unlock()
	}
	return all, direct
}

// Wait waits until the service should be queried: it has changed, due is over or, for a
// subscriber without an answer (first), the overview is complete. While it is
// incomplete, Wait returns the error, once. Then the service should be queried every
// PollInterval, as long as the agent is healthy.
func (s *Subscriber) Wait(ctx context.Context, first bool, due time.Duration) error {
	v := s.overview
	isDue := time.After(due)
	var poll <-chan time.Time // while the overview is incomplete
	for {
		complete, stateChanged, err := v.state()
		switch {
		case complete && first:
			s.reported = false
			select {
			case <-s.news: // the query follows now
			default:
			}
			return nil
		case complete:
			s.reported, poll = false, nil
		case err != nil && !s.reported:
			s.reported = true
			return err
		case poll == nil:
			poll = time.After(PollInterval(v.client))
		}
		select {
		case <-s.news:
			if !first || complete {
				return nil
			}
		case <-stateChanged:
		case <-isDue:
			if complete {
				return nil
			}
		case <-poll:
			if v.client.Healthy() {
				v.warn(err)
				return nil
			}
			poll = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func notifyAll(subscribers map[*Subscriber]bool) {
	for s := range subscribers {
		s.news.Send()
	}
}

const (
	// pollEach, times the number of loops, but at least pollLeast, is the interval of
	// polling a service.
	pollEach  = 20 * time.Millisecond
	pollLeast = time.Second
)

// PollInterval returns the time until the next poll of a service without an overview:
// fifty queries a second for all services, minus up to a quarter at random.
func PollInterval(client *consul.Client) time.Duration {
	_, watches := client.Capacity()
	interval := max(pollLeast, time.Duration(watches)*pollEach)
	return interval - client.Jitter(interval/4)
}
