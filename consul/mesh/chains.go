package mesh

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// ChainID names a discovery chain.
type ChainID struct {
	Service    string `json:"service"`
	Namespace  string `json:"namespace,omitempty"`  // empty: the client's
	Partition  string `json:"partition,omitempty"`  // likewise
	Datacenter string `json:"datacenter,omitempty"` // empty: the agent's
}

// Chain is what is known of a discovery chain.
type Chain struct {
	ChainState
	LastError error // of the last query; nil: it succeeded, or there was none
	Refused   bool  // LastError concerns the query or its token, and not the health of Consul
}

// ChainState is what a process hands over of a chain.
type ChainState struct {
	ChainID  `json:"id"`
	Compiled *Compiled `json:"compiled"` // in use; nil: not known
	Index    uint64    `json:"index"`    // of Consul's last answer
	Since    time.Time `json:"since"`    // when Compiled came into use
	// Lost, if not nil: Consul has forgotten the chain and answers this default one.
	// Until KeptUntil, Compiled stays in use.
	Lost      *Compiled `json:"lost,omitempty"`
	KeptUntil time.Time `json:"kept_until,omitzero"`
}

// ChainOptions configure Chains.
type ChainOptions struct {
	Consul *consul.Client
	Wait   func() time.Duration // of blocking queries
	// Changed is called when a chain has changed, or whether it can be had. It must not block.
	Changed func()
	Log     zerolog.Logger
}

// Chains follows discovery chains, each with a blocking query or, if there are too many, with a
// query after each change of a config entry. Known chains stay in use while Consul cannot be asked.
// When Consul has forgotten one (the index goes backwards to the default chain), it stays
// for [discovery.Stay], or until another than the default is written. Its methods may be
// called concurrently.
type Chains struct {
	options ChainOptions
	watches[ChainID, *followedChain]

	// The mu of watches guards the fields below.
	news     wake.All               // something else is known of a chain
	restored map[ChainID]ChainState // of the old process, until the first Follow
}

// followedChain is a chain, and its watch.
type followedChain struct {
	Chain
	owner *Chains
	watch panics.Running
}

// NewChains returns Chains that follow nothing.
func NewChains(o ChainOptions) *Chains {
	return &Chains{options: o, watches: watches[ChainID, *followedChain]{
		entries: newEntries(o.Consul, o.Wait, kindsOfChains), followed: make(map[ChainID]*followedChain),
	}}
}

// Follow follows these chains from now on, and forgets the others.
func (c *Chains) Follow(ids []ChainID) {
	c.ending(func() []func() {
		wanted := make(map[ChainID]bool, len(ids))
		for _, id := range ids {
			if wanted[id] = true; c.followed[id] != nil {
				continue
			}
			f := &followedChain{owner: c}
			f.ChainState = c.restored[id]
			f.ChainID = id
			c.followed[id] = f
			if !c.paused {
				f.start()
			}
		}
		c.restored = nil
		return c.forgetLocked(func(id ChainID) bool { return wanted[id] })
	})
}

func (f *followedChain) task() *panics.Running { return &f.watch }

// start begins the watch. The caller holds mu.
func (f *followedChain) start() {
	f.owner.entries.begin()
	query := consul.Query{
		Path:  "discovery-chain/" + discovery.PathSegment(f.Service),
		Needs: fmt.Sprintf("service:read: service %q { policy = \"read\" }", f.Service),
	}
	query.Namespace, query.Partition, query.Datacenter = f.Namespace, f.Partition, f.Datacenter
	var await func(context.Context)
	if f.ChainID == (ChainID{Service: f.Service}) { // else other entries count
		await = f.owner.entries.await()
	}
	f.watch.Begin(context.Background(), panics.Watch, func(ctx context.Context) {
		_ = f.owner.options.Consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query: query, Await: await,
			Read: func(a consul.Answer, body []byte) error {
				compiled, err := decodeChain(body, f.Service)
				if err == nil && f.process(compiled, a.Index, time.Now()) {
					f.owner.options.Changed()
				}
				return err
			},
			Ended: func(err error) {
				if f.ended(err) {
					f.owner.options.Changed()
				}
			},
			BeforeQuery: func(context.Context) (time.Duration, error) {
				wait, expired := f.begin(time.Now())
				if expired {
					f.owner.options.Changed()
				}
				return wait, nil
			},
		})
	})
}

// begin returns how long the next query may block: at most until the chain is no longer kept.
// When that time is over, it ends the keeping and reports it.
func (f *followedChain) begin(now time.Time) (wait time.Duration, expired bool) {
	wait = f.owner.options.Wait()
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	switch {
	case f.Lost == nil:
	case now.Before(f.KeptUntil):
		// The clock may have been put back.
		if longest := now.Add(discovery.Stay); f.KeptUntil.After(longest) {
			f.KeptUntil = longest
		}
		wait = min(wait, max(f.KeptUntil.Sub(now), time.Second))
	default:
		f.log().Warn().Msg("the discovery chain that Consul has lost is no longer in use")
		f.Compiled, f.Since, expired = f.Lost, now, true
		f.Lost, f.KeptUntil = nil, time.Time{}
	}
	return wait, expired
}

// process applies an answer. It reports whether another chain is in use, or is kept from now on.
func (f *followedChain) process(compiled *Compiled, index uint64, now time.Time) (changed bool) {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	forgotten := index < f.Index || f.Lost != nil
	f.Index = index
	same := f.Compiled != nil && reflect.DeepEqual(f.Compiled, compiled)
	if forgotten && compiled.Default && f.Compiled != nil && !same {
		if f.Lost == nil {
			f.KeptUntil, changed = now.Add(discovery.Stay), true
			f.log().Warn().Stringer("for", discovery.Stay).
				Msg("Consul has lost its state: the discovery chain that it had stays in use until one is written")
		}
		f.Lost = compiled
		return changed
	}
	f.Lost, f.KeptUntil = nil, time.Time{}
	if same {
		return false
	}
	f.Compiled, f.Since = compiled, now
	f.owner.news.Send()
	return true
}

// ended records the result of a query. changed: another reason for an unknown chain.
func (f *followedChain) ended(err error) (changed bool) {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	switch {
	case err == nil && f.LastError != nil:
		f.log().Info().Msg("the discovery chain is followed again")
	case err != nil && f.LastError == nil && f.Compiled != nil:
		f.log().Warn().Err(err).Msg("the discovery chain cannot be followed: what is known of it stays in use")
	case err != nil && f.LastError == nil:
		f.log().Warn().Err(err).Msg("there is no discovery chain yet: the service has no peers")
	}
	changed = f.Compiled == nil && fmt.Sprint(err) != fmt.Sprint(f.LastError)
	f.LastError, f.Refused = err, consul.Refused(err)
	f.owner.news.Send()
	return changed
}

func (f *followedChain) log() *zerolog.Logger {
	log := f.owner.options.Log.With().Str("chain", f.Service).Logger()
	return &log
}

// Await waits until each chain that is followed is known, or Consul refuses it, or ctx ends.
func (c *Chains) Await(ctx context.Context) {
	for {
		known, news := c.settled()
		if known {
			return
		}
		if wake.Await(ctx, news) != nil {
			return
		}
	}
}

func (c *Chains) settled() (known bool, news <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.followed {
		if f.Compiled == nil && !f.Refused {
			return false, c.news.Wait()
		}
	}
	return true, nil
}

// Lookup returns what is known of a chain; not followed is as not known.
func (c *Chains) Lookup(id ChainID) Chain {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.followed[id]; f != nil {
		return f.Chain
	}
	return Chain{ChainState: ChainState{ChainID: id, Compiled: c.restored[id].Compiled}}
}

// All returns what is known of the chains that are followed, sorted.
func (c *Chains) All() []Chain {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Chain, 0, len(c.followed))
	for _, f := range c.followed {
		all = append(all, f.Chain)
	}
	slices.SortFunc(all, func(a, b Chain) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Datacenter, b.Datacenter),
			cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Namespace, b.Namespace))
	})
	return all
}

// Save returns the chains that are known, for a new process.
func (c *Chains) Save() []ChainState {
	c.mu.Lock()
	defer c.mu.Unlock()
	states := slices.Collect(maps.Values(c.restored))
	for _, f := range c.followed {
		if f.Compiled != nil {
			states = append(states, f.ChainState)
		}
	}
	slices.SortFunc(states, func(a, b ChainState) int { return cmp.Compare(fmt.Sprint(a.ChainID), fmt.Sprint(b.ChainID)) })
	return states
}

// Restore sets what another process knew of the chains, until the first Follow. Lookup has it
// before.
func (c *Chains) Restore(states []ChainState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restored = make(map[ChainID]ChainState, len(states))
	for _, s := range states {
		if s.Compiled != nil {
			c.restored[s.ChainID] = s
		}
	}
}
