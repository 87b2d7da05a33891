package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/observe/panics"
)

// kvCertificates are the certificates in Consul's KV store, with one watch for each prefix
// that a listener uses.
type kvCertificates struct {
	client  *consul.Client
	log     zerolog.Logger
	wait    func() time.Duration // of blocking queries
	dir     string               // of copies; empty: none
	changed func()               // other certificates are in use; it must not call kvCertificates

	mu sync.Mutex
	// mu guards the fields below.
	paused   bool
	byPrefix map[string]*kvPrefix
}

// kvPrefix is a watch of the keys below a prefix.
type kvPrefix struct {
	*certificates.Collection
	owner    *kvCertificates
	prefix   string
	log      zerolog.Logger
	copy     *certificates.Copy // nil: none
	usable   chan struct{}      // closed when Consul has answered, or has answered an earlier process
	isUsable sync.Once
	stop     func() // ends the watch, and waits for that; nil: it does not run

	// Only the goroutine of the watch uses the fields below.

	failing bool               // the last query failed
	saved   certificates.InUse // what copy has
}

func newKVCertificates(client *consul.Client, log zerolog.Logger, dir string, wait func() time.Duration, changed func()) *kvCertificates {
	return &kvCertificates{client: client, log: log, wait: wait, dir: dir, changed: changed, byPrefix: make(map[string]*kvPrefix)}
}

// follow returns the certificates below a prefix, which are followed until retain.
func (k *kvCertificates) follow(prefix string) *kvPrefix {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.byPrefix[prefix]; p != nil {
		return p
	}
	source := "consul_kv:" + prefix
	p := &kvPrefix{owner: k, prefix: prefix, usable: make(chan struct{}), log: k.log.With().Str("keys", source).Logger()}
	p.Collection = certificates.NewCollection(certificates.CollectionOptions{Source: source, Changed: func(err error) {
		if err != nil {
			p.log.Warn().Err(err).Msg("changed certificates cannot be used: the previous ones stay in use")
		} else {
			p.log.Info().Msg("the certificates have changed: new connections use them")
		}
	}})
	if k.dir != "" {
		c := certificates.CopyIn(k.dir, source)
		p.copy = &c
		state, err := c.Load()
		if err != nil {
			p.log.Warn().Err(err).Msg("the copy of the certificates cannot be used")
		}
		p.suggest(state)
	}
	k.byPrefix[prefix] = p
	if !k.paused {
		p.start()
	}
	return p
}

// start begins the watch. The caller holds the mu of kvCertificates.
func (p *kvPrefix) start() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		defer panics.Contain(panics.Task, nil)
		defer p.owner.client.Join()()
		_ = p.owner.client.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query: consul.KeysBelow(p.prefix + "/"),
			Read:  p.read,
			Ended: p.ended,
			Begin: func(context.Context) (time.Duration, error) { return p.owner.wait(), nil },
		})
	})
	p.stop = func() {
		cancel()
		running.Wait()
	}
}

// read takes an answer of Consul.
func (p *kvPrefix) read(a consul.Answer, body []byte) error {
	list, err := consul.DecodeKeys(a, body)
	if err != nil {
		return fmt.Errorf("keys below %s/: %w", p.prefix, err)
	}
	keys := make(map[string]string, len(list))
	for _, k := range list {
		keys[k.Key[len(p.prefix)+1:]] = string(k.Value)
	}
	p.Update(keys)
	p.owner.changed()
	p.isUsable.Do(func() { close(p.usable) })
	p.save()
	return nil
}

// save copies the certificates if they have changed.
func (p *kvPrefix) save() {
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
func (p *kvPrefix) ended(err error) {
	switch {
	case err == nil && p.failing:
		p.log.Info().Msg("the certificates in Consul are followed again")
	case err != nil && !p.failing:
		p.log.Warn().Err(err).Msg("the certificates in Consul cannot be followed: those that are known stay in use")
	}
	if p.failing = err != nil; consul.Refused(err) {
		p.Fail(err)
	} else if err == nil {
		p.Fail(nil)
	}
}

// suggest sets what an earlier process had.
func (p *kvPrefix) suggest(state certificates.InUse) {
	if state.IsZero() {
		return
	}
	p.Suggest(state)
	p.isUsable.Do(func() { close(p.usable) })
}

// retain stops the watches of all prefixes but those that the listeners use.
func (k *kvCertificates) retain(listeners []*listener) {
	used := make(map[string]bool)
	for _, l := range listeners {
		for _, p := range l.kvPrefixes() {
			used[p.prefix] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for prefix, p := range k.byPrefix {
		if !used[prefix] {
			p.end()
			delete(k.byPrefix, prefix)
		}
	}
}

// end ends the watch, if it runs.
func (p *kvPrefix) end() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// pause ends all watches until resume: a new process watches Consul.
func (k *kvCertificates) pause() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paused = true
	for _, p := range k.byPrefix {
		p.end()
	}
}

func (k *kvCertificates) resume() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.paused = false
	for _, p := range k.byPrefix {
		if p.stop == nil {
			p.start()
		}
	}
}

// handed returns what is in use for a new process, by prefix. It is secret.
func (k *kvCertificates) handed() map[string]certificates.InUse {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]certificates.InUse)
	for prefix, p := range k.byPrefix {
		if state := p.InUse(); !state.IsZero() {
			all[prefix] = state
		}
	}
	return all
}

// adopt sets what the old process had.
func (k *kvCertificates) adopt(all map[string]certificates.InUse) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for prefix, state := range all {
		if p := k.byPrefix[prefix]; p != nil {
			p.suggest(state)
		}
	}
}

// kvPrefixes returns the prefixes that the listener uses.
func (l *listener) kvPrefixes() []*kvPrefix {
	if l.tls == nil {
		return nil
	}
	return l.tls.kv
}

// awaitCertificates waits until the certificates of listeners are known, at most for
// timeout.
func (g *Gateway) awaitCertificates(ctx context.Context, listeners []*listener, timeout time.Duration) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	loading, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, u := range acmeUses(listeners) {
		u.Load(loading, u.names)
	}
	for _, l := range listeners {
		for _, p := range l.kvPrefixes() {
			select {
			case <-p.usable:
				continue
			default:
			}
			select {
			case <-p.usable:
			case <-timer.C:
				p.log.Warn().Stringer("waited", timeout).Msg("no certificates yet: Consul has not answered")
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// updateTLS makes new connections use the certificates that are known now.
func (g *Gateway) updateTLS() {
	for _, l := range g.allListeners() {
		if l.tls != nil {
			l.tls.update()
		}
	}
}
