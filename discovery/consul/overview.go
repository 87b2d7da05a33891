package consul

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// scope is a part of the catalog.
type scope struct{ datacenter, namespace, partition string }

// overview tells the watches that have no blocking query of their own which
// services have changed. It follows a part of the catalog with a few blocking
// queries, and keeps of it only what it takes to see a change; what a service's
// instances are, a watch always asks for itself. It is safe for concurrent use.
//
// It has three ways; docs/consul.md says what each costs.
//
//   - By nodes: a query on the services of each node, or two if nodes are few,
//     whose answer says which of them changed, and one or two on the checks that
//     are not passing.
//   - By checks: a query on all checks, whose answer says the same. An instance
//     that changed while its checks did not is not found that way. So there is
//     another query on the names of all services, whose index moves with any
//     instance; if it moved alone, a locator finds out why.
//   - By names: where the checks are many, or change their output all the time,
//     the locator lists them when the index of the names moved. The checks that
//     are critical, and those that warn, are watched: they are few.
type overview struct {
	client *Client
	scope  scope
	end    context.CancelFunc
	ended  sync.WaitGroup
	poke   chan struct{} // capacity 1: there is reason to choose the way again

	mu       sync.Mutex // guards the fields below
	riders   map[string]map[*rider]bool
	count    int             // of riders
	bare     int             // of those whose instances have no checks
	names    []string        // of all nodes; nil: not known yet
	feeds    map[*feed]error // nil: its last query was answered
	size     int             // of the catalog: checks or instances; 0: not known yet
	noisy    time.Time       // until when not to watch all checks
	bares    *rate.Limiter   // of changes that checks do not show
	bareEnd  time.Time       // until when to expect more of them
	begun    bool            // every feed that there has to be is in feeds
	complete bool            // all of them have been answered
	moved    chan struct{}   // closed, and replaced, when complete or an error changes
}

// newOverview starts an overview. It ends with its last rider.
func (c *Client) newOverview(s scope) *overview {
	v := &overview{
		client: c,
		scope:  s,
		poke:   make(chan struct{}, 1),
		riders: make(map[string]map[*rider]bool),
		feeds:  make(map[*feed]error),
		moved:  make(chan struct{}),
		bares:  rate.NewLimiter(rate.Every(bareFade), bareLimit),
	}
	ctx, end := context.WithCancel(context.Background())
	v.end = end
	v.ended.Go(func() { v.run(ctx) })
	return v
}

// state returns whether the overview sees every change, and if not perhaps why.
func (v *overview) state() (complete bool, moved <-chan struct{}, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.feeds {
		if e != nil && e != errPending {
			err = e
		}
	}
	return v.complete, v.moved, err
}

// changed tells the riders of a service, or of every service on a node if the
// change names none, that there is news. While the overview is not complete it
// does not: all riders will be told when it is.
func (v *overview) changed(c change) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.complete {
		return
	}
	if c.service != "" {
		tell(v.riders[c.service])
		return
	}
	for _, riders := range v.riders {
		for r := range riders {
			if _, on := slices.BinarySearch(r.nodes, c.node); on {
				r.tell()
			}
		}
	}
}

// allChanged tells every rider.
func (v *overview) allChanged() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.allChangedLocked()
}

func (v *overview) allChangedLocked() {
	for _, riders := range v.riders {
		tell(riders)
	}
}

// services returns the names that riders wait for, sorted.
func (v *overview) services() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.riders))
}

// run keeps the overview until ctx ends.
func (v *overview) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	nodes := v.newFeed("catalog/nodes", v.takeNodes)
	v.add(nodes, errPending)
	running.Go(func() { nodes.run(ctx) })

	var s *session
	defer func() {
		if s != nil {
			s.close()
		}
	}()
	for {
		resized := v.client.gate.sized()
		if names, way := v.choose(time.Now()); names != nil {
			if s != nil && s.way != way {
				s.close()
				s = nil
			}
			if s == nil {
				s = v.begin(ctx, way)
			}
			s.follow(names)
		}
		select {
		case <-v.poke:
		case <-resized:
		case <-ctx.Done():
			return
		}
	}
}

// reconsider makes run choose again.
func (v *overview) reconsider() {
	select {
	case v.poke <- struct{}{}:
	default:
	}
}

// takeNodes reads the names of all nodes.
func (v *overview) takeNodes(a answer) error {
	var nodes []struct{ Node string }
	if err := read(a.body, &nodes); err != nil {
		return err
	}
	if nodes == nil {
		return errors.New("the answer is no list of nodes")
	}
	names := make([]string, len(nodes))
	for n := range nodes {
		names[n] = nodes[n].Node
	}
	slices.Sort(names)
	v.mu.Lock()
	v.names = names
	v.mu.Unlock()
	v.reconsider()
	return nil
}

// errPending stands for a feed that has not been answered yet.
var errPending = errors.New("no answer yet")

// add counts f in: the overview is complete when it has been answered.
func (v *overview) add(f *feed, state error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.feeds[f] = state
	v.judgeLocked(false)
}

func (v *overview) drop(f *feed) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.feeds, f)
	v.judgeLocked(false)
}

// setBegun says whether all feeds are there.
func (v *overview) setBegun(begun bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.begun = begun
	v.judgeLocked(false)
}

// note takes note of how f's last query ended.
func (v *overview) note(f *feed, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, ok := v.feeds[f]
	if !ok || before == nil && err == nil {
		return
	}
	v.feeds[f] = err
	v.judgeLocked(err != nil && (before == nil || before == errPending))
}

// judgeLocked decides anew whether the overview is complete. What it may have
// missed until then, the riders ask for. Failed says that there is a new error.
func (v *overview) judgeLocked(failed bool) {
	complete := v.begun
	for _, err := range v.feeds {
		complete = complete && err == nil
	}
	if complete == v.complete && !failed {
		return
	}
	if v.complete = complete; complete {
		v.allChangedLocked()
	}
	close(v.moved)
	v.moved = make(chan struct{})
}

// unavailable reports whether err says that the token, or something between
// sluice and Consul, does not let the client have an overview at all.
func unavailable(err error) bool {
	status := (*statusError)(nil)
	if !errors.As(err, &status) {
		return false
	}
	return status.code >= 400 && status.code < 500 && status.code != http.StatusTooManyRequests
}
