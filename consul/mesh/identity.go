package mesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/observe/panics"
)

const (
	// An agent renews a leaf at 60 to 90 percent of its life. After that, sluice asks again without
	// an index, and reports the delay at overdueAt: an agent may have forgotten the leaf, or answer
	// from a cache that nothing renews (hashicorp/consul issues 5239, 10871 and 16779).
	askAgainAt, overdueAt = 90, 95
	// askAgainEvery is the time between two such queries, and bounds a query that blocks meanwhile.
	askAgainEvery = 10 * time.Second
	// unfitFor is how long the latest leaf and roots may mismatch unreported: one may come later.
	unfitFor = 10 * time.Second
)

// IdentityOptions configure an Identity.
type IdentityOptions struct {
	Consul *consul.Client
	Wait   func() time.Duration // of blocking queries
	Events *events.Feed         // may be nil
	Log    zerolog.Logger
}

// Identity follows sluice's certificate in the mesh and the roots that it trusts. What is in use
// stays until something newer verifies. It is a certificates.Source, and the certificates.Security
// of connections to members of the mesh. Its methods may be called concurrently.
type Identity struct {
	options IdentityOptions
	current atomic.Pointer[Material]          // nil: none yet
	peers   atomic.Pointer[map[string]peered] // by the name of the peering
	leaves  atomic.Uint64                     // put to use
	rooted  atomic.Uint64                     // roots put to use

	following sync.Mutex // guards the fields below, and the beginning and the end of the queries
	begun     bool       // Configure was called
	paused    bool
	queries   panics.Running

	mu sync.Mutex
	// mu guards the fields below.
	service    string        // "": sluice is not in the mesh
	usable     chan struct{} // closed when current is not nil
	leaf       *leaf         // of the latest answer; nil: none yet
	roots      *roots        // of the latest answer; nil: none yet
	leafError  error         // of the latest query; nil: it succeeded, or there was none
	rootsError error
	unfit      error // why leaf and roots are not in use; nil: they are, or there are none
	unfitSince time.Time
	logged     condition // the last one in the log
}

// NewIdentity returns an Identity of no service.
func NewIdentity(o IdentityOptions) *Identity {
	i := &Identity{options: o, usable: make(chan struct{})}
	i.peers.Store(&map[string]peered{})
	return i
}

// Configure sets the name of sluice in the mesh; "": sluice is not in the mesh. After a change the
// former certificate stays in use until there is one for the new name.
func (i *Identity) Configure(service string) {
	i.following.Lock()
	defer i.following.Unlock()
	if i.begun && i.Service() == service {
		return
	}
	i.begun = true
	i.queries.End()
	i.rename(service)
	if service != "" && !i.paused {
		i.start()
	}
}

// rename forgets what was about another name.
func (i *Identity) rename(service string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.service, i.leaf, i.roots, i.leafError, i.rootsError, i.unfit = service, nil, nil, nil, nil, nil
	i.logged = condition{}
	if m := i.current.Load(); service == "" && m != nil {
		i.current.Store(nil)
		i.usable = make(chan struct{})
	} else if m != nil {
		i.roots = m.roots
	}
}

// Service returns the name of sluice in the mesh; "": sluice is not in the mesh.
func (i *Identity) Service() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.service
}

// Pause ends the queries until Resume: a new process asks.
func (i *Identity) Pause() {
	i.following.Lock()
	defer i.following.Unlock()
	i.paused = true
	i.queries.End()
}

// Resume begins the queries again, after Pause.
func (i *Identity) Resume() {
	i.following.Lock()
	defer i.following.Unlock()
	i.paused = false
	if !i.queries.Runs() && i.Service() != "" {
		i.start()
	}
}

// start begins the queries. The caller holds following.
func (i *Identity) start() {
	service := i.Service()
	follow := func(q consul.Query, read func([]byte) error, failed *error) func(context.Context) {
		again := false // the last query had no index
		return func(ctx context.Context) {
			_ = i.options.Consul.Follow(ctx, consul.FollowOptions{ // ends with ctx
				Query: q,
				Read:  func(_ consul.Answer, body []byte) error { return read(body) },
				Ended: func(err error) { i.ended(failed, err) },
				BeforeQuery: func(context.Context) (wait time.Duration, _ error) {
					wait, again = i.wait(again)
					return wait, nil
				},
			})
		}
	}
	leaf := follow(consul.Query{
		Path: "agent/connect/ca/leaf/" + discovery.PathSegment(service), Authority: true,
		Needs: fmt.Sprintf("service:write: service %q { policy = \"write\" }", service),
	}, func(body []byte) error {
		l, err := readLeaf(body, service)
		if err == nil {
			i.process(func() { i.leaf = l })
		}
		return err
	}, &i.leafError)
	// No permission is needed.
	roots := follow(consul.Query{Path: "agent/connect/ca/roots", Authority: true}, func(body []byte) error {
		r, err := readRoots(body)
		if err == nil {
			i.process(func() { i.roots = r })
		}
		return err
	}, &i.rootsError)
	i.queries.Begin(context.Background(), panics.Watch, leaf, roots)
}

// wait returns how long the next query blocks. While nothing is in use or a renewal is due,
// every second query does not block; again says that the last one did not.
func (i *Identity) wait(again bool) (time.Duration, bool) {
	wait := i.options.Wait()
	until := time.Until(i.askAgain())
	switch {
	case until > 0:
		return min(wait, max(until, time.Second)), false
	case !again:
		return 0, true
	}
	return min(wait, askAgainEvery), false
}

// askAgain returns the time from which queries do not rely on the index.
func (i *Identity) askAgain() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	m := i.current.Load()
	if m == nil || i.unfit != nil {
		return time.Time{}
	}
	return m.partOfLife(askAgainAt)
}

// process applies what an answer says, and decides what is in use.
func (i *Identity) process(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
	i.decide(time.Now())
}

// ended records the result of a query, in failed.
func (i *Identity) ended(failed *error, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	*failed = err
	i.decide(time.Now())
	i.logCondition(time.Now())
}

// Refresh implements certificates.Source: it notices what changes with time only.
func (i *Identity) Refresh() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.decide(time.Now())
	i.logCondition(time.Now())
}

// decide uses the newest leaf and roots that fit together: both from the latest answers, or one
// with the other that is in use. The caller holds mu.
func (i *Identity) decide(now time.Time) {
	used := i.current.Load()
	if used != nil && used.leaf == i.leaf && used.roots == i.roots {
		i.unfit = nil
		return
	}
	pairs := []Material{{i.leaf, i.roots}}
	if used != nil {
		pairs = append(pairs, Material{used.leaf, i.roots}, Material{i.leaf, used.roots})
	}
	var unfit error
	for _, m := range pairs {
		if m.leaf == nil || m.roots == nil {
			continue
		}
		err := fits(m.leaf, m.roots, now)
		if err == nil {
			i.use(used, &m)
			break
		}
		unfit = errors.Join(unfit, err)
	}
	if unfit != nil && i.unfit == nil {
		i.unfitSince = now
	}
	i.unfit = unfit
}

// use puts m to use in place of used, which may be nil. The caller holds mu.
func (i *Identity) use(used, m *Material) {
	if used != nil && used.leaf == m.leaf && used.roots == m.roots {
		return
	}
	i.current.Store(m)
	newLeaf := used == nil || used.leaf.text != m.leaf.text
	newRoots := used == nil || !equalRoots(used.roots, m.roots)
	if used == nil {
		close(i.usable)
	}
	if newLeaf {
		i.leaves.Add(1)
	}
	if newRoots {
		i.rooted.Add(1)
	}
	if used == nil || newLeaf || newRoots {
		i.options.Log.Info().Str("identity", m.URI()).Time("expires", m.Expires()).Int("roots", len(m.roots.trusted)).
			Bool("new_certificate", newLeaf).Bool("new_roots", newRoots).Msg("mesh: new connections use this certificate and these roots")
	}
}

// Await waits until there is a certificate, or timeout or ctx ends, and reports whether there is.
func (i *Identity) Await(ctx context.Context, timeout time.Duration) bool {
	i.mu.Lock()
	usable := i.usable
	i.mu.Unlock()
	select {
	case <-usable:
		return true
	case <-time.After(timeout):
	case <-ctx.Done():
	}
	return i.Current() != nil
}

// Current returns what is in use; nil: nothing yet. Its leaf may have expired.
func (i *Identity) Current() *Material { return i.current.Load() }

// TermsFor implements certificates.Security. No session is resumed, so every connection is
// verified. There is no ALPN: the built-in proxy knows no protocols.
func (i *Identity) TermsFor(instance *discovery.Instance) (certificates.Terms, error) {
	if instance.Identity == "" {
		return certificates.Terms{}, errors.New("the instance has no identity: it is not in the mesh")
	}
	m := i.current.Load()
	if now := time.Now(); m == nil || now.After(m.Expires()) {
		var err error
		if m, err = i.valid(now); err != nil {
			return certificates.Terms{}, certificates.LackError{Err: err}
		}
	}
	if instance.Peer == "" {
		return certificates.Terms{Config: m.configFor(instance.ServerName, instance.Identity), ByPriorKnowledge: true}, nil
	}
	r, err := i.rootsOf(instance.Peer)
	if err != nil {
		return certificates.Terms{}, err
	}
	return certificates.Terms{Config: m.config(r, instance.ServerName, strings.Fields(instance.Identity)...), ByPriorKnowledge: true}, nil
}

// valid returns what is in use, or why it is not valid at the time now.
func (i *Identity) valid(now time.Time) (*Material, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if m := i.current.Load(); m != nil && !now.After(m.Expires()) {
		return m, nil
	}
	_, err := i.condition(now)
	return nil, err
}

// Certificates implements certificates.Source.
func (i *Identity) Certificates() []*tls.Certificate {
	if m := i.current.Load(); m != nil {
		return []*tls.Certificate{&m.leaf.certificate}
	}
	return nil
}

// Statuses implements certificates.Source.
func (i *Identity) Statuses() []certificates.Status {
	service := i.Service()
	if service == "" {
		return nil
	}
	source, err := "mesh:"+service, i.Err()
	m := i.current.Load()
	if m == nil {
		return []certificates.Status{{File: source, Fault: err, Told: true}}
	}
	own := certificates.StatusOf(source, []string{m.URI()}, m.leaf.chain[:1], err).RenewedBy(m.partOfLife(overdueAt))
	own.Told = true
	return []certificates.Status{own, certificates.StatusOfTrusted("mesh:roots", m.roots.trusted, nil)}
}

// IdentityState is what a process hands over to a new one. It is secret.
type IdentityState struct {
	Leaf  LeafText  `json:"leaf"`
	Roots RootsText `json:"roots"`
}

// Save returns what is in use for a new process; nil: nothing.
func (i *Identity) Save() *IdentityState {
	m := i.current.Load()
	if m == nil {
		return nil
	}
	return &IdentityState{Leaf: m.leaf.text, Roots: m.roots.text}
}

// Restore puts to use what the old process had, if it is valid. It must be called before Configure.
func (i *Identity) Restore(old *IdentityState) {
	if old == nil {
		return
	}
	l, err := parseLeaf(old.Leaf)
	var r *roots
	if err == nil {
		r, err = parseRoots(old.Roots)
	}
	if err == nil {
		err = fits(l, r, time.Now())
	}
	if err != nil {
		i.options.Log.Warn().Err(err).Msg("mesh: the certificate of the old process cannot be used")
		return
	}
	i.process(func() { i.leaf, i.roots = l, r })
}
