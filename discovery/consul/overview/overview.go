// Package overview reports which services of Consul's catalog have changed, if there are more
// services than connections. An overview follows a part of the catalog with a few blocking queries,
// and stores only what shows a change. A subscriber queries the instances of its service itself.
package overview

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/consul/api"
	"golang.org/x/time/rate"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

const (
	// Queries is the maximum number of concurrent queries that do not block: for the
	// subscribers' services, and again for the lists of an overview.
	Queries = 16

	// Needed is the number of queries in flight that an overview and another query need.
	Needed = 8
)

// The lists of an overview are limited to volumeRate bytes a second, after volumeBurst.
// Consul needs a quarter of a processor to write so much.
const (
	volumeRate  = 16 << 20
	volumeBurst = 64 << 20
)

// Scope is a part of the catalog, and who answers for it.
type Scope struct {
	Datacenter, Namespace, Partition string
	// Stale: any server may answer a query that blocks. The leader would have those of all
	// replicas. It answers what is read without blocking, so that a server that lags hides no
	// change.
	Stale bool
}

// overview follows the names and addresses of all nodes, the instances on each node
// (see node), and the checks in each state but passing. It is safe for concurrent use.
type overview struct {
	overviews *Overviews
	client    *consul.Client
	scope     Scope
	wait      time.Duration // of its queries, without a change
	volume    *rate.Limiter // bytes per second
	reads     chan struct{} // one element per list of a node that is read without blocking
	end       context.CancelFunc
	running   sync.WaitGroup
	poke      wake.One     // the nodes have changed
	total     atomic.Int64 // entries of all lists

	mu           sync.Mutex                      // guards the fields below
	subscribers  map[string]map[*Subscriber]bool // by the service's name in lower case
	count        int                             // of subscribers
	direct       int                             // of subscribers, the direct ones
	waiting      map[*Subscriber]bool            // to be direct
	behind       map[string]map[string]bool      // services behind proxies, by proxy; in lower case
	pairs        int                             // in behind
	addresses    addresses                       // nil: unknown
	nodes        map[string]*node                // by name
	taken        int                             // slots
	clock        uint64                          // number of changes of instances
	lists        map[string]error                // result of the last query, by path
	complete     bool                            // every list, and one for each node, was read
	warned       bool                            // the log has that it is incomplete
	stateChanged wake.All                        // complete or an error has changed
}

// run follows the lists until ctx ends.
func (v *overview) run(ctx context.Context) {
	v.followList(ctx, "catalog/nodes", v.readNodes)
	// Consul has an index for each state.
	for _, state := range []string{"critical", "warning"} {
		checks := newEntries(&v.total)
		v.followList(ctx, "health/state/"+state, func(body []byte) error { return checks.compareChecks(body, v.changed) })
	}
	services := false
	panics.Repeat(ctx.Done(), panics.Watch, time.Second, func() {
		for {
			resized := v.client.Resized()
			if v.followNodes(ctx) && !services {
				services = true
				v.followList(ctx, "catalog/services", v.readServices)
			}
			select {
			case <-v.poke:
			case <-resized:
			case <-ctx.Done():
				return
			}
		}
	})
}

// followList follows a list from now on, until ctx ends.
func (v *overview) followList(ctx context.Context, path string, read func([]byte) error) {
	v.add(path)
	v.running.Go(func() {
		panics.Repeat(ctx.Done(), panics.Watch, time.Second, func() {
			v.follow(ctx, path, func(_ consul.Answer, body []byte) error { return read(body) }, nil)
		})
	})
}

// follow follows a list until ctx ends. For begin see consul.FollowOptions.
func (v *overview) follow(ctx context.Context, path string, read func(consul.Answer, []byte) error, begin func(context.Context) (time.Duration, error)) {
	_ = v.client.Follow(ctx, consul.FollowOptions{ // ends with ctx
		Query:       v.query(path),
		Wait:        v.wait,
		BeforeQuery: begin,
		Read: func(a consul.Answer, body []byte) error {
			err := read(a, body)
			if err == nil && a.Forgot {
				v.allChanged()
			}
			return err
		},
		StaleIfBlocking:     v.scope.Stale,
		Ended:               func(err error) { v.record(path, err) },
		Volume:              v.volume,
		ExcludeFromCapacity: true,
	})
}

// query returns the query for a list.
func (v *overview) query(path string) consul.Query {
	s := v.scope
	return consul.Query{
		Path:         path,
		QueryOptions: api.QueryOptions{Datacenter: s.Datacenter, Namespace: s.Namespace, Partition: s.Partition},
		Needs:        "service:read and node:read for all services and nodes",
	}
}

// readNodes reads the names and addresses of all nodes.
func (v *overview) readNodes(body []byte) error {
	var nodes addresses
	if err := decode(body, &nodes); err != nil {
		return err
	}
	if nodes == nil {
		return errors.New("the answer is not a list of nodes")
	}
	v.useAddresses(nodes)
	v.poke.Send()
	return nil
}

// useAddresses makes these the addresses of the nodes.
func (v *overview) useAddresses(all addresses) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before := v.addresses
	v.addresses = all
	for node, address := range all {
		if old, ok := before[node]; ok && old != address && v.complete {
			v.nodeChangedLocked(node)
		}
	}
}

// readServices reads nothing: the index of the names of all services changes with every
// instance. It makes the nodes read whose queries do not block.
func (v *overview) readServices([]byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.nodes {
		n.wake.Send()
	}
	return nil
}

// changed notifies the subscribers of a service or, if the owner is a node, of every
// service on the node. It does nothing while the overview is incomplete: all
// subscribers are notified when it is complete.
func (v *overview) changed(o owner) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case !v.complete:
	case o.service != "":
		name := strings.ToLower(o.service)
		notifyAll(v.subscribers[name])
		// A sidecar may come before its instance is known.
		if of, is := strings.CutSuffix(name, "-sidecar-proxy"); is {
			notifyAll(v.subscribers[of])
		}
		for service := range v.behind[name] { // it may reach its instances through them
			notifyAll(v.subscribers[service])
		}
	default:
		v.nodeChangedLocked(o.node)
	}
}

// recordProxy notes that instances of a service are proxies of another one, as sidecars are.
func (v *overview) recordProxy(proxy, service string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.recordProxyLocked(proxy, service)
}

func (v *overview) recordProxyLocked(proxy, service string) {
	proxy, service = strings.ToLower(proxy), strings.ToLower(service)
	if proxy == service || v.behind[proxy][service] || v.pairs >= maxPairs {
		return
	}
	if v.behind[proxy] == nil {
		v.behind[proxy] = make(map[string]bool)
	}
	v.behind[proxy][service] = true
	v.pairs++
}

func (v *overview) nodeChangedLocked(node string) {
	for _, subscribers := range v.subscribers {
		for s := range subscribers {
			if _, on := slices.BinarySearch(s.nodes, node); on {
				s.news.Send()
			}
		}
	}
}

// allChanged notifies all subscribers. Consul has lost its state: no index tells anything.
func (v *overview) allChanged() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.nodes {
		n.index = 0
	}
	v.allChangedLocked()
}

func (v *overview) allChangedLocked() {
	for _, subscribers := range v.subscribers {
		notifyAll(subscribers)
	}
}

// errPending is the result for a list that has not been read yet.
var errPending = errors.New("no answer yet")

// state returns whether the overview is complete and, if not, the error of a list, if any.
func (v *overview) state() (complete bool, stateChanged <-chan struct{}, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.complete { // no list has an error
		return true, v.stateChanged.Wait(), nil
	}
	for _, e := range v.lists {
		if e != nil && e != errPending {
			err = e
		}
	}
	return false, v.stateChanged.Wait(), err
}

// warn logs that services are polled, once while the overview is incomplete.
func (v *overview) warn(err error) {
	v.mu.Lock()
	warned := v.warned
	v.warned = true
	v.mu.Unlock()
	if !warned {
		v.overviews.log.Warn().Err(cmp.Or(err, errPending)).
			Msg("consul: the overview is incomplete: services are polled, so changes are seen late")
	}
}

// add adds a list. The overview is incomplete until it has been read.
func (v *overview) add(path string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lists[path] = errPending
	v.updateCompleteLocked(false)
}

// record records the result of a query for a list.
func (v *overview) record(path string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	before, ok := v.lists[path]
	if !ok || before == nil && err == nil {
		return
	}
	if err != nil {
		err = fmt.Errorf("watch all services: %w", err)
	}
	v.lists[path] = err
	v.updateCompleteLocked(err != nil && (before == nil || before == errPending))
}

// updateCompleteLocked decides whether the overview is complete. Then it notifies all subscribers,
// because changes may have been missed. failed says that there is a new error.
func (v *overview) updateCompleteLocked(failed bool) {
	complete := v.addresses != nil && len(v.nodes) == len(v.addresses)
	for _, err := range v.lists {
		complete = complete && err == nil
	}
	if complete == v.complete && !failed {
		return
	}
	v.complete = complete
	if complete {
		v.warned = false
		v.allChangedLocked()
	}
	v.stateChanged.Send()
}

// decode decodes one value. It ignores unknown fields.
func decode(b []byte, to any) error {
	if err := json.Unmarshal(b, to, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}
