// Package dns01 answers the challenge DNS-01 of ACME (RFC 8555, section 8.4), which proves
// wildcards too. It makes a record by a provider's API, at a name server (RFC 2136) or by a
// program, waits until the name servers have it, and removes it.
package dns01

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"
	"github.com/rs/zerolog"

	"sluice/observe/panics"
	"sluice/observe/wake"
)

const (
	// lifeOfRecords is their TTL, no longer than an order takes. No provider has a higher minimum.
	lifeOfRecords = time.Minute
	// The pause between two looks for a record doubles from firstPause to maxPause.
	firstPause = 250 * time.Millisecond
	maxPause   = 2 * time.Second
	// removeTimeout limits the removal of records after Close.
	removeTimeout = 5 * time.Second
)

// Options are required, except where they say otherwise.
type Options struct {
	Provider
	// Timeout limits each call of the provider.
	Timeout time.Duration `key:"timeout" default:"30s" min:"1s" max:"10m"`
	// Propagation limits the wait until all name servers have a record.
	Propagation time.Duration `key:"propagation" default:"2m" min:"1s" max:"1h"`
	// Resolvers, as "host:port", find the zone and its name servers. Empty: those of the system.
	Resolvers []string       `key:"resolvers" format:"dns_server"`
	Log       zerolog.Logger `key:"-"`
}

// A Solver implements acmez.Solver and acmez.Waiter. It is safe for concurrent use.
type Solver struct {
	options Options
	ctx     context.Context // of the removal of records
	cancel  func()

	mu sync.Mutex
	// mu guards the fields below.
	present map[[2]string]*record // by the name of the challenge and the value: not removed yet
	closed  bool
	empty   chan struct{} // closed when the solver is closed and present is empty
}

// A record answers a challenge.
type record struct {
	name  string // without a final dot; the target, if the name of the challenge is an alias
	zone  string
	value string
	made  libdns.Record // nil: the provider was not asked
}

// New returns a Solver. The caller must call Close, and Await later.
func New(o Options) *Solver {
	s := &Solver{options: o, present: make(map[[2]string]*record), empty: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func keyOf(c acme.Challenge) [2]string {
	return [2]string{normal(c.DNS01TXTRecordName()), c.DNS01KeyAuthorization()}
}

// Present makes the record of a challenge. CleanUp must follow, whatever it returns.
func (s *Solver) Present(ctx context.Context, c acme.Challenge) error {
	key := keyOf(c)
	r := &record{value: key[1]}
	if !s.add(key, r) {
		return fmt.Errorf("dns-01: the order of %s is over", key[0])
	}
	if err := s.place(ctx, r, key[0]); err != nil {
		return fmt.Errorf("dns-01: where to make the record %s: %w", key[0], err)
	}
	wanted := libdns.RR{Type: "TXT", Name: libdns.RelativeName(r.name+".", r.zone+"."), Data: r.value, TTL: lifeOfRecords}
	r.made = wanted // also if the call fails: nobody knows then
	err := s.call(ctx, func(ctx context.Context, provider records) error {
		made, err := provider.AppendRecords(ctx, r.zone+".", []libdns.Record{wanted})
		if err == nil && len(made) == 1 {
			r.made = made[0] // with what the provider finds it by
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("dns-01: the record %s cannot be made: %w", r.name, err)
	}
	return nil
}

// add notes that there will be a record. It reports false if s is closed.
func (s *Solver) add(key [2]string, r *record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.present[key] = r
	}
	return !s.closed
}

// place finds where the record for a name belongs.
func (s *Solver) place(ctx context.Context, r *record, name string) (err error) {
	resolver := newResolver(s.options.Resolvers)
	if r.name, err = resolver.target(ctx, name); err == nil {
		r.zone, err = resolver.zone(ctx, r.name)
	}
	return err
}

// call calls f with the provider as its files are now, for at most Timeout.
func (s *Solver) call(ctx context.Context, f func(context.Context, records) error) (err error) {
	defer panics.Contain(panics.Task, nil)
	provider, err := s.options.Provider.open()
	if err != nil {
		return err
	}
	limit := s.options.Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	err = panics.Err // unless f returns
	err = f(ctx, provider)
	if err != nil && ctx.Err() == context.DeadlineExceeded && s.options.Provider.Name != Exec {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// Wait waits until all name servers have the record, for at most Propagation.
func (s *Solver) Wait(ctx context.Context, c acme.Challenge) error {
	key := keyOf(c)
	s.mu.Lock()
	r := s.present[key]
	s.mu.Unlock()
	if r == nil {
		return nil // the order has failed
	}
	limited, cancel := context.WithTimeout(ctx, s.options.Propagation)
	defer cancel()
	resolver := newResolver(s.options.Resolvers)
	var servers []nameServer
	var last error
	looking := ctx // once, so that there is something to tell
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		var err error
		if len(servers) == 0 {
			servers, err = resolver.authorities(looking, r.zone)
		}
		if err == nil {
			err = lack(looking, servers, r.name, r.value)
		}
		if err == nil {
			return nil
		}
		if looking.Err() == nil {
			last = err
		}
		looking = limited
		_ = wake.Await(limited, time.After(pause))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if limited.Err() != nil {
			return fmt.Errorf("dns-01: the record %s is not at all name servers after %v: %w", r.name, s.options.Propagation, last)
		}
	}
}

// CleanUp removes the record of a challenge, also after the end of ctx.
func (s *Solver) CleanUp(_ context.Context, c acme.Challenge) error {
	key := keyOf(c)
	s.mu.Lock()
	r := s.present[key]
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	defer s.forget(key)
	if r.made == nil {
		return nil
	}
	err := s.call(s.ctx, func(ctx context.Context, provider records) error {
		_, err := provider.DeleteRecords(ctx, r.zone+".", []libdns.Record{r.made})
		return err
	})
	if err != nil {
		s.options.Log.Warn().Str("record", r.name).Str("value", r.value).Err(err).Msg("acme: the record of a challenge cannot be removed: it does no harm, and stays")
	}
	return err
}

func (s *Solver) forget(key [2]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.present, key)
	s.endLocked()
}

func (s *Solver) endLocked() {
	if s.closed && len(s.present) == 0 && !wake.Closed(s.empty) {
		close(s.empty)
	}
}

// Close makes further orders fail. Those under way must have ended: their records are removed.
func (s *Solver) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.endLocked()
}

// Await waits, after Close, until the records are removed, or that has taken too long.
func (s *Solver) Await() {
	defer s.cancel()
	select {
	case <-s.empty:
		return
	case <-time.After(removeTimeout):
	}
	s.cancel() // ends programs
	select {
	case <-s.empty:
	case <-time.After(2 * outputWait):
	}
}
