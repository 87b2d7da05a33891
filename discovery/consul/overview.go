package consul

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// scope is a part of the catalog.
type scope struct{ datacenter, namespace, partition string }

// lostAfter is how long an overview may be incomplete while the agent is good.
// Then its riders do without it.
const lostAfter = 10 * time.Second

// An overview reads lists of up to volumeRate bytes a second, after volumeBurst at
// once: Consul spends a quarter of a processor on writing so much.
const (
	volumeRate  = 16 << 20
	volumeBurst = 64 << 20
)

// overview tells the watches that have no blocking query of their own which
// services have changed. It follows a part of the catalog with a few blocking
// queries, and keeps of it only what it takes to see a change; what a service's
// instances are, a watch always asks for itself. It is safe for concurrent use.
//
// The names and addresses of all nodes, and the checks in each state but passing,
// are always followed. For the instances there are two ways; docs/consul.md says
// what each costs.
//
//   - By nodes: a query on the services of each node, whose answer says which of
//     them changed.
//   - By names, where nodes are too many for that: a query on the names of all
//     services, whose index moves with any instance; see names.
type overview struct {
	client *Client
	scope  scope
	wait   time.Duration // of its queries, while nothing changes
	volume *rate.Limiter // of the bytes that feeds read
	end    context.CancelFunc
	ended  sync.WaitGroup
	poke   chan struct{} // capacity 1: there is reason to choose the way again

	mu        sync.Mutex                 // guards the fields below
	riders    map[string]map[*rider]bool // by the service's name in lower case
	count     int                        // of riders
	addresses map[string]string          // of all nodes, by name; nil: not known yet
	feeds     map[*feed]error            // nil: its last query was answered
	begun     bool                       // every feed that there has to be is in feeds
	complete  bool                       // all of them have been answered
	since     time.Time                  // when complete became so
	lost      bool                       // it is not to be waited for
	moved     chan struct{}              // closed, and replaced, when complete, lost or an error changes
}

// newOverview starts an overview. It ends with its last rider.
func (c *Client) newOverview(s scope, wait time.Duration) *overview {
	v := &overview{
		client: c,
		scope:  s,
		wait:   wait,
		volume: rate.NewLimiter(volumeRate, volumeBurst),
		poke:   make(chan struct{}, 1),
		riders: make(map[string]map[*rider]bool),
		feeds:  make(map[*feed]error),
		since:  time.Now(),
		moved:  make(chan struct{}),
	}
	ctx, end := context.WithCancel(context.Background())
	v.end = end
	v.ended.Go(func() { v.run(ctx) })
	return v
}

// errLost is what is wrong with an overview that is not to be waited for.
var errLost = errors.New("there is no overview of all services")

// state returns whether the overview sees every change, and if not perhaps why.
func (v *overview) state() (complete bool, moved <-chan struct{}, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.feeds {
		if e != nil && e != errPending {
			err = e
		}
		if unavailable(e) {
			return false, v.moved, fmt.Errorf("%w: %w", errLost, e)
		}
	}
	if v.lost {
		err = fmt.Errorf("%w: %w", errLost, cmp.Or(err, errPending))
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
		tell(v.riders[strings.ToLower(c.service)])
		return
	}
	v.nodeChangedLocked(c.node)
}

func (v *overview) nodeChangedLocked(node string) {
	for _, riders := range v.riders {
		for r := range riders {
			if _, on := slices.BinarySearch(r.nodes, node); on {
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

// services returns the names that riders wait for, in lower case and sorted.
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
		if names, way, known := v.choose(); known {
			if s != nil && s.way != way {
				s.close()
				s = nil
			}
			if s == nil {
				s = v.begin(ctx, way)
			}
			s.follow(names)
		}
		var later <-chan time.Time
		if !v.judgeLoss(time.Now()) {
			later = time.After(time.Second)
		}
		select {
		case <-v.poke:
		case <-resized:
		case <-later:
		case <-ctx.Done():
			return
		}
	}
}

// takeNodes reads the names and addresses of all nodes. The address is that of
// the node's instances that have none of their own.
func (v *overview) takeNodes(a answer) error {
	var nodes []struct{ Node, Address string }
	if err := read(a.body, &nodes); err != nil {
		return err
	}
	if nodes == nil {
		return errors.New("the answer is no list of nodes")
	}
	addresses := make(map[string]string, len(nodes))
	for _, n := range nodes {
		addresses[n.Node] = n.Address
	}
	v.mu.Lock()
	before := v.addresses
	v.addresses = addresses
	for node, address := range addresses {
		if old, ok := before[node]; ok && old != address && v.complete {
			v.nodeChangedLocked(node)
		}
	}
	v.mu.Unlock()
	poke(v.poke)
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
	if complete != v.complete {
		v.complete, v.since = complete, time.Now()
	}
	if complete {
		v.lost = false
		v.allChangedLocked()
	}
	v.movedLocked()
	poke(v.poke)
}

// judgeLoss decides whether the overview is to be waited for, and reports whether
// that will not change by itself. While the agent is not good it is: those who
// would do without it would fail too.
func (v *overview) judgeLoss(now time.Time) (settled bool) {
	good, since := v.client.agents.good()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.complete {
		return true
	}
	if since.Before(v.since) {
		since = v.since
	}
	if lost := good && now.Sub(since) >= lostAfter; lost != v.lost {
		v.lost = lost
		v.movedLocked()
	}
	return false
}

func (v *overview) movedLocked() {
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
