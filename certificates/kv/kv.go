// Package kv follows certificates in Consul's KV store, each prefix once. What is in use outlives
// the listeners, an outage of Consul and, with a copy in a directory, a restart.
package kv

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Options configure a Manager.
type Options struct {
	Consul *consul.Client
	Wait   func() time.Duration // of blocking queries
	Copies string               // the directory of copies; "": none
	// Changed is called when other certificates are in use. It must not call the Manager.
	Changed func()
	Log     zerolog.Logger
}

// Manager has the certificates below prefixes, with one watch for each prefix in use. Its methods
// may be called concurrently.
type Manager struct {
	options Options

	mu sync.Mutex
	// mu guards the fields below.
	paused   bool
	byPrefix map[string]*Prefix
	restored map[string]certificates.InUse // of the old process, until Retain
}

// Prefix, a certificates.Source, is the certificates below a prefix, and the watch of its keys.
type Prefix struct {
	*certificates.Collection
	owner     *Manager
	prefix    string
	log       zerolog.Logger
	copy      *certificates.Copy // nil: none
	settled   chan struct{}      // closed when Consul has answered, to any process, or has refused
	isSettled sync.Once
	watch     panics.Running

	// Only the goroutine of the watch uses the fields below.

	failing bool               // the last query failed
	refused int                // consecutive queries
	saved   certificates.InUse // what copy has
}

// refusalsLimit is how many consecutive refusals, over some 3 s, end the wait for a prefix.
// An agent may not know a new token at once.
const refusalsLimit = 6

// New returns a Manager without prefixes.
func New(o Options) *Manager { return &Manager{options: o, byPrefix: make(map[string]*Prefix)} }

// Follow returns the certificates below a prefix, which are followed until a Retain without it.
func (m *Manager) Follow(prefix string) *Prefix {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.byPrefix[prefix]; p != nil {
		return p
	}
	source := "consul_kv:" + prefix
	p := &Prefix{owner: m, prefix: prefix, settled: make(chan struct{}), log: m.options.Log.With().Str("keys", source).Logger()}
	p.Collection = certificates.NewCollection(source, certificates.LogChanges("keys", source, m.options.Log))
	if m.options.Copies != "" {
		c := certificates.CopyIn(m.options.Copies, source)
		p.copy = &c
		state, err := c.Load()
		if err != nil {
			p.log.Warn().Err(err).Msg("the copy of the certificates cannot be used")
		}
		p.suggest(state)
	}
	p.suggest(m.restored[prefix])
	m.byPrefix[prefix] = p
	if !m.paused {
		p.start()
	}
	return p
}

// start begins the watch. The caller holds the mu of the Manager.
func (p *Prefix) start() {
	p.watch.Begin(context.Background(), panics.Watch, func(ctx context.Context) {
		_ = p.owner.options.Consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query:       consul.KeysBelow(p.prefix + "/"),
			Read:        p.read,
			Ended:       p.ended,
			BeforeQuery: func(context.Context) (time.Duration, error) { return p.owner.options.Wait(), nil },
		})
	})
}

// read takes an answer of Consul.
func (p *Prefix) read(a consul.Answer, body []byte) error {
	list, err := consul.DecodeKeys(a, body)
	if err != nil {
		return fmt.Errorf("keys below %s/: %w", p.prefix, err)
	}
	keys := make(map[string]string, len(list))
	for _, k := range list {
		keys[k.Key[len(p.prefix)+1:]] = string(k.Value)
	}
	p.Update(keys)
	p.owner.options.Changed()
	p.setReady()
	p.save()
	return nil
}

// save copies the certificates if they have changed.
func (p *Prefix) save() {
	if p.copy == nil {
		return
	}
	state := p.InUse()
	if state.Equal(p.saved) {
		return
	}
	if err := p.copy.Save(state); err != nil {
		p.log.Warn().Err(err).Msg("the certificates cannot be copied")
		return
	}
	p.saved = state
}

// ended records the result of a query. While Consul is away the certificates say nothing
// about it: they stay in use. That it refuses the query needs an operator.
func (p *Prefix) ended(err error) {
	switch {
	case err == nil && p.failing:
		p.log.Info().Msg("the certificates in Consul are followed again")
	case err != nil && !p.failing:
		p.log.Warn().Err(err).Msg("the certificates in Consul cannot be followed: those that are known stay in use")
	}
	if p.failing = err != nil; consul.Refused(err) {
		p.Fail(err)
		if p.refused++; p.refused >= refusalsLimit {
			p.setReady()
		}
		return
	}
	if p.refused = 0; err == nil {
		p.Fail(nil)
	}
}

// setReady ends the waits for the first answer.
func (p *Prefix) setReady() { p.isSettled.Do(func() { close(p.settled) }) }

// suggest sets what an earlier process had.
func (p *Prefix) suggest(state certificates.InUse) {
	if state.IsZero() {
		return
	}
	p.Suggest(state)
	p.setReady()
}

// Retain stops the watches of all prefixes that are not in use.
func (m *Manager) Retain(used []*Prefix) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restored = nil
	for prefix, p := range m.byPrefix {
		if !slices.Contains(used, p) {
			p.watch.End()
			delete(m.byPrefix, prefix)
		}
	}
}

// Pause ends all watches until Resume: a new process watches Consul.
func (m *Manager) Pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = true
	for _, p := range m.byPrefix {
		p.watch.End()
	}
}

// Resume begins the watches again, after Pause.
func (m *Manager) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused = false
	for _, p := range m.byPrefix {
		if !p.watch.Runs() {
			p.start()
		}
	}
}

// Save returns what is in use for a new process, by prefix. It is secret.
func (m *Manager) Save() map[string]certificates.InUse {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make(map[string]certificates.InUse)
	for prefix, p := range m.byPrefix {
		if state := p.InUse(); !state.IsZero() {
			all[prefix] = state
		}
	}
	return all
}

// Restore sets what the old process had, also for prefixes that are followed later, until Retain:
// the history of the old process may have other listeners than the file.
func (m *Manager) Restore(all map[string]certificates.InUse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.restored = all
	for prefix, state := range all {
		if p := m.byPrefix[prefix]; p != nil {
			p.suggest(state)
		}
	}
}

// Await waits until certificates are known, from Consul or an earlier process, or Consul refuses
// them. It reports false if expired gets a value or ctx ends before.
func (p *Prefix) Await(ctx context.Context, expired <-chan time.Time) bool {
	if wake.Closed(p.settled) {
		return true
	}
	select {
	case <-p.settled:
		return true
	case <-expired:
		p.log.Warn().Msg("no certificates yet: Consul has not answered")
	case <-ctx.Done():
	}
	return false
}
