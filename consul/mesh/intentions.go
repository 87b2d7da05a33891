package mesh

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Times for an instance that rejects sluice's certificate before Consul says why. An agent and
// sluice learn of an intention within a millisecond of each other, in either order.
const (
	denialPatience = 500 * time.Millisecond // of [Intentions.AwaitDenial]
	denialPause    = 10 * time.Second       // after a wait in vain: there is another reason
	// denialLag is how long a denial that is over explains the ends of connections: a sidecar may
	// learn that later than sluice.
	denialLag = time.Second
)

// IntentionOptions configure Intentions.
type IntentionOptions struct {
	Consul *consul.Client
	// Namespace and Partition are the client's, where sluice is; empty: the default ones.
	Namespace, Partition string
	Wait                 func() time.Duration // of blocking queries
	// Denied is called when connections of sluice to a service are denied: the open ones are to
	// end. It is called again after denialLag, for those opened meanwhile. It must not block.
	Denied func(Destination)
	Events *events.Feed
	Log    zerolog.Logger
}

// Intentions follows what Consul's intentions say about sluice's connections to services: each with
// a blocking query or, if there are too many, a query after each change of an intention. Where none
// is about sluice, it asks for the default. What is known stays while Consul cannot be asked.
// Its methods may be called concurrently.
type Intentions struct {
	options IntentionOptions
	watches[Destination, *followedService]

	// The mu of watches guards the fields below.
	source   Destination
	restored map[Destination]IntentionState // of the old process, until the first Follow
}

// IntentionState is what is known about a service.
type IntentionState struct {
	Destination
	Source  string    `json:"source"` // sluice's name in the mesh
	Verdict Verdict   `json:"verdict"`
	Why     string    `json:"why,omitempty"`   // by which intention, or by default
	Since   time.Time `json:"since,omitzero"`  // of Verdict
	Index   uint64    `json:"index,omitempty"` // of Consul's last answer
	// LastError is the error of the last query; empty: it succeeded, or there was none.
	LastError string `json:"last_error,omitempty"`
}

// followedService is a service, and its watch.
type followedService struct {
	IntentionState
	owner   *Intentions
	changed wake.All          // Verdict has changed
	vain    time.Time         // when a wait was in vain; zero: none was
	former  *discovery.Denial // until Since; nil: there was none
	renamed bool              // the open connections may have another name of sluice
	spared  bool              // Denied, but open connections stay: Consul has lost its state
	watch   panics.Running
}

// NewIntentions returns Intentions that follow nothing.
func NewIntentions(o IntentionOptions) *Intentions {
	return &Intentions{options: o, watches: watches[Destination, *followedService]{
		entries: newEntries(o.Consul, o.Wait, kindsOfIntentions), followed: make(map[Destination]*followedService),
	}}
}

// Follow follows what the intentions say about connections from a service, sluice, to destinations,
// and forgets all other services.
func (all *Intentions) Follow(source string, destinations []Destination) {
	all.ending(func() (ends []func()) {
		from := Destination{all.options.Partition, all.options.Namespace, source}.normal()
		wanted := make(map[Destination]bool, len(destinations))
		for _, d := range destinations {
			wanted[all.complete(d)] = true
		}
		ends = all.forgetLocked(func(d Destination) bool {
			stays := wanted[d] && from == all.source
			if !stays {
				all.followed[d].changed.Send()
			}
			return stays
		})
		renamed := all.source.Service != "" && all.source != from
		all.source = from
		for d := range wanted {
			if all.followed[d] != nil {
				continue
			}
			f := &followedService{owner: all, renamed: renamed}
			f.IntentionState = IntentionState{Destination: d, Source: from.String(), Verdict: Unknown}
			if old, ok := all.restored[d]; ok && old.Source == f.Source {
				f.IntentionState = old
			}
			all.followed[d] = f
			if !all.paused {
				f.start()
			}
		}
		all.restored = nil
		return ends
	})
}

func (f *followedService) task() *panics.Running { return &f.watch }

// complete returns d with the client's namespace and partition in place of empty ones.
func (all *Intentions) complete(d Destination) Destination {
	return Destination{cmp.Or(d.Partition, all.options.Partition), cmp.Or(d.Namespace, all.options.Namespace), d.Service}.normal()
}

// start begins the watch. The caller holds mu.
func (f *followedService) start() {
	f.owner.entries.begin()
	var await func(context.Context)
	if f.owner.isOwn(f.Destination) { // else other entries count
		await = f.owner.entries.await()
	}
	f.watch.Begin(context.Background(), panics.Watch, func(ctx context.Context) {
		var ending sync.WaitGroup
		defer ending.Wait()
		_ = f.owner.options.Consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
			Query: f.match(), Await: await,
			BeforeQuery: func(context.Context) (time.Duration, error) { return f.owner.options.Wait(), nil },
			Read:        func(a consul.Answer, body []byte) error { return f.read(ctx, &ending, a.Index, body) },
			Ended:       f.ended,
		})
	})
}

// isOwn reports whether a service is in the client's namespace and partition.
func (all *Intentions) isOwn(d Destination) bool {
	own := all.complete(Destination{})
	return d.Namespace == own.Namespace && d.Partition == own.Partition
}

// asked returns the name of a service in a query: the client's namespace and partition are implied.
func (all *Intentions) asked(d Destination) string {
	if all.isOwn(d) {
		return d.Service
	}
	return strings.Join([]string{cmp.Or(d.Partition, defaultName), cmp.Or(d.Namespace, defaultName), d.Service}, "/")
}

// match returns the query of the intentions about the service.
func (f *followedService) match() consul.Query {
	name := f.owner.asked(f.Destination)
	return consul.Query{
		Needs: fmt.Sprintf("intentions:read: service %q { policy = \"read\" }", f.Service),
		Send: func(c *api.Client, q *api.QueryOptions) error {
			_, _, err := c.Connect().IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{name}}, q)
			return err
		},
	}
}

// read takes an answer to match, for a watch that runs until ctx ends.
func (f *followedService) read(ctx context.Context, ending *sync.WaitGroup, index uint64, body []byte) error {
	all, err := decodeMatch(body)
	if err != nil {
		return err
	}
	f.owner.mu.Lock()
	source := f.owner.source
	f.owner.mu.Unlock()
	verdict, why, found := decide(all, source)
	if !found {
		if verdict, err = f.askDefault(ctx, source); err != nil {
			return err
		}
		why = "the default: no intention is about it"
	}
	if f.process(verdict, why, index) {
		f.end(ctx, ending)
	}
	return nil
}

// end ends the open connections, and after denialLag those that a sidecar has accepted meanwhile:
// it may learn later than sluice.
func (f *followedService) end(ctx context.Context, ending *sync.WaitGroup) {
	f.owner.options.Denied(f.Destination)
	ending.Go(func() {
		defer panics.Contain(panics.Watch, nil)
		if wake.Await(ctx, time.After(denialLag)) == nil && f.denies() {
			f.owner.options.Denied(f.Destination)
		}
	})
}

// denies reports whether the service is followed, and denied.
func (f *followedService) denies() bool {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	return f.Verdict == Denied && f.owner.followed[f.Destination] == f
}

// askDefault asks what holds without an intention about sluice: default_intention_policy of
// Consul's servers, else the default of the ACLs.
func (f *followedService) askDefault(ctx context.Context, source Destination) (Verdict, error) {
	from, to := f.owner.asked(source), f.owner.asked(f.Destination)
	var answer struct{ Allowed *bool }
	_, err := f.owner.options.Consul.Get(ctx, consul.Query{
		WithoutIndex: true,
		Needs:        fmt.Sprintf("service:read: service %q { policy = \"read\" }", f.Service),
		Send: func(c *api.Client, q *api.QueryOptions) error {
			_, _, err := c.Connect().IntentionCheck(&api.IntentionCheck{Source: from, Destination: to}, q)
			return err
		},
	}, func(r io.Reader) error { return json.NewDecoder(io.LimitReader(r, 1<<10)).Decode(&answer) })
	switch {
	case err != nil:
		return Unknown, err
	case answer.Allowed == nil:
		return Unknown, errors.New("the answer does not say whether connections are allowed")
	case *answer.Allowed:
		return Allowed, nil
	}
	return Denied, nil
}

// process records what Consul says, and reports whether open connections are to end. They stay:
//   - after a loss of Consul's state (the index went backwards), which deletes no intention,
//     until a denial for another reason is written;
//   - when sluice gets another name, or the watch is over: the answer is not about them.
func (f *followedService) process(v Verdict, why string, index uint64) (end bool) {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	if f.owner.followed[f.Destination] != f {
		return false
	}
	lost, before := index < f.Index, f.Verdict
	former := f.denialLocked()
	written := f.spared && v == Denied && !lost && why != f.Why
	f.Index, f.Why = index, why
	f.spared = v == Denied && (f.spared && !written || lost && v != before)
	if v == before {
		return written
	}
	f.former = former
	f.Verdict, f.Since = v, time.Now()
	f.vain = time.Time{}
	f.changed.Send()
	if before != Unknown || v == Denied {
		f.logVerdictLocked()
	}
	return v == Denied && !lost && !(before == Unknown && f.renamed)
}

// logVerdictLocked logs that the verdict has changed, and adds an event.
func (f *followedService) logVerdictLocked() {
	e := events.Event{Kind: events.KindPermitted, Level: events.Info, Service: f.Destination.String()}
	log := f.owner.options.Log.Info()
	if f.Verdict == Denied {
		e.Kind, e.Level, log = events.KindDenied, events.Warning, f.owner.options.Log.Warn()
	}
	e.Text = fmt.Sprintf("Consul's intentions for connections from %s: %s, by %s", f.Source, f.Verdict, f.Why)
	f.owner.options.Events.Add(e)
	log.Str("source", f.Source).Str("destination", e.Service).Str("verdict", string(f.Verdict)).Str("by", f.Why).
		Msg("what Consul's intentions say has changed")
}

// ended records the result of a query.
func (f *followedService) ended(err error) {
	f.owner.mu.Lock()
	defer f.owner.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if (text == "") != (f.LastError == "") {
		log := f.owner.options.Log.With().Str("destination", f.Destination.String()).Logger()
		if err != nil {
			log.Warn().Err(err).Msg("the intentions for a service cannot be followed: what is known of them stays")
		} else {
			log.Info().Msg("the intentions for a service are followed again")
		}
	}
	f.LastError = text
}

// Denial returns why the mesh denies sluice's connections to an instance, or did a moment ago. nil:
// they are allowed, that is not known, or the instance is not in the mesh.
func (all *Intentions) Denial(i discovery.Instance) *discovery.Denial {
	all.mu.Lock()
	defer all.mu.Unlock()
	if f := all.ofLocked(i); f != nil {
		return f.denialLocked()
	}
	return nil
}

// AwaitDenial is Denial for an instance that has just rejected sluice's certificate. It waits up to
// 0.5 s, and until ctx ends, for Consul to say why, unless a wait was in vain within the last 10 s.
func (all *Intentions) AwaitDenial(ctx context.Context, i discovery.Instance) *discovery.Denial {
	ctx, cancel := context.WithTimeout(ctx, denialPatience)
	defer cancel()
	for {
		denial, changed := all.denialOrChange(i, ctx.Err() != nil)
		if denial != nil || changed == nil {
			return denial
		}
		_ = wake.Await(ctx, changed)
	}
}

// denialOrChange returns a denial, or a channel that is closed when there may be one; neither:
// there is no sense in a wait. over: the wait has ended.
func (all *Intentions) denialOrChange(i discovery.Instance, over bool) (*discovery.Denial, <-chan struct{}) {
	all.mu.Lock()
	defer all.mu.Unlock()
	f := all.ofLocked(i)
	if f == nil {
		return nil, nil
	}
	denial := f.denialLocked()
	switch {
	case denial != nil, time.Since(f.vain) < denialPause:
		return denial, nil
	case over:
		f.vain = time.Now()
		return nil, nil
	}
	return nil, f.changed.Wait()
}

// ofLocked returns the followed service of an instance, or nil.
func (all *Intentions) ofLocked(i discovery.Instance) *followedService {
	if d, ok := DestinationOf(i); ok {
		return all.followed[d]
	}
	return nil
}

func (f *followedService) denialLocked() *discovery.Denial {
	switch {
	case f.Verdict == Denied:
	case f.former != nil && time.Since(f.Since) < denialLag:
		return f.former
	default:
		return nil
	}
	return &discovery.Denial{Source: f.Source, Destination: f.Destination.String(), Why: f.Why}
}

// All returns what is known, sorted by the names of the services.
func (all *Intentions) All() []IntentionState {
	all.mu.Lock()
	defer all.mu.Unlock()
	states := make([]IntentionState, 0, len(all.followed))
	for _, f := range all.followed {
		states = append(states, f.IntentionState)
	}
	slices.SortFunc(states, func(a, b IntentionState) int {
		return strings.Compare(a.Destination.String(), b.Destination.String())
	})
	return states
}

// DeniedBy returns why connections to a service are denied; "": they are not, or that is not known.
func (all *Intentions) DeniedBy(d Destination) string {
	all.mu.Lock()
	defer all.mu.Unlock()
	if f := all.followed[all.complete(d)]; f != nil && f.Verdict == Denied {
		return f.Why
	}
	return ""
}

// Restore sets what another process knew of the services that the first Follow names.
func (all *Intentions) Restore(states []IntentionState) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.restored = make(map[Destination]IntentionState, len(states))
	for _, s := range states {
		s.LastError = ""
		all.restored[s.Destination] = s
	}
}
