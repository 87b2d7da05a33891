package discoverytest

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const (
	healthPath = "/v1/health/service/"
	queryPath  = "/v1/query/"
	// connectPath has the instances of NAME-sidecar-proxy, and those of NAME that are native.
	connectPath = "/v1/health/connect/"
	leaderPath  = "/v1/status/leader"
)

// Request is a query of the fake.
type Request struct {
	Time       time.Time
	Path       string
	Service    string // "": not for the health of one
	Index      uint64 // 0: not blocking
	Wait       time.Duration
	Consistent bool
	Stale      bool
	Cached     bool
	Near       string
	Tags       []string
	Filter     string
	Datacenter string
	Token      string
	MaxAge     time.Duration // Cache-Control: max-age; 0: none
}

// Consul is the fake. It is an http.Handler. Its methods may be called concurrently.
type Consul struct {
	server *httptest.Server // nil: only a handler

	mu          sync.Mutex // guards the fields below
	index       uint64
	services    map[string]service
	fault       *Fault
	plain       bool          // no streaming backend
	changed     chan struct{} // closed, and replaced, at each change of the fields above
	restored    chan struct{} // closed, and replaced, by Restore
	requests    []Request
	probeStatus int              // of the responses to probes; 0: 200
	probes      int              // queries for the leader
	views       map[string]*view // that have been queried, by path
	distances   []Distance
}

type service struct {
	index   uint64
	entries []*api.ServiceEntry
	ttl     string // of the prepared query of this name
}

// New returns a fake without a listener.
func New() *Consul {
	return &Consul{index: 10, services: make(map[string]service), changed: make(chan struct{}), restored: make(chan struct{})}
}

// Start returns a fake that listens on loopback until t ends.
func Start(t testing.TB) *Consul {
	c := New()
	c.server = httptest.NewServer(c)
	t.Cleanup(func() {
		c.server.CloseClientConnections()
		c.server.Close()
	})
	return c
}

// URL returns the base URL of a fake that listens.
func (c *Consul) URL() string { return c.server.URL }

// Set sets the instances of name, at the next index.
func (c *Consul) Set(name string, entries ...*api.ServiceEntry) {
	c.SetAll(map[string][]*api.ServiceEntry{name: entries})
}

// SetAll is Set for several services, with one index.
func (c *Consul) SetAll(services map[string][]*api.ServiceEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	for name, entries := range services {
		c.services[name] = service{index: c.index, entries: stamp(c.services[name].entries, entries, c.index), ttl: c.services[name].ttl}
	}
	c.refreshAllLocked()
	c.broadcastLocked()
}

// findLocked returns a service by its name in any case, like Consul.
func (c *Consul) findLocked(name string) service {
	if s, ok := c.services[name]; ok {
		return s
	}
	for other, s := range c.services {
		if strings.EqualFold(other, name) {
			return s
		}
	}
	return service{}
}

// BehindGateway is the key in the meta of a terminating gateway whose value is the service behind
// it.
const BehindGateway = "behind"

// inMeshLocked returns the instances of a service by which it is reached in the mesh.
func (c *Consul) inMeshLocked(name string) service {
	s, own := c.findLocked(name+"-sidecar-proxy"), c.findLocked(name)
	joined := service{index: max(s.index, own.index), entries: slices.Clone(s.entries)}
	for _, e := range own.entries {
		if e.Service.Connect != nil && e.Service.Connect.Native {
			joined.entries = append(joined.entries, e)
		}
	}
	for _, gateways := range c.services {
		for _, e := range gateways.entries {
			if e.Service.Kind == api.ServiceKindTerminatingGateway && e.Service.Meta[BehindGateway] == name {
				joined.index, joined.entries = max(joined.index, gateways.index), append(joined.entries, e)
			}
		}
	}
	return joined
}

// SetTTL sets the TTL of the prepared query with the name of a service, which returns its
// instances.
func (c *Consul) SetTTL(name, ttl string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.services[name]
	s.ttl = ttl
	c.services[name] = s
}

// SetIn sets the instances of name in a data centre, for queries with that data centre.
// Without them, such queries get the ones of Set.
func (c *Consul) SetIn(datacenter, name string, entries ...*api.ServiceEntry) {
	for _, e := range entries {
		e.Node.Datacenter = datacenter
	}
	c.Set(datacenter+"/"+name, entries...)
}

// SetIndex sets the index of all services, from which later ones grow. A smaller index
// simulates a Consul that has lost its state, and has got the registrations again, in their order.
func (c *Consul) SetIndex(index uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = index
	for name, s := range c.services {
		s.index, s.entries = index, restamp(s.entries)
		c.services[name] = s
	}
	for _, v := range c.views {
		v.index = index
	}
	c.broadcastLocked()
}

func (c *Consul) lastIndex() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.index
}

// Lose is Set by a Consul that has lost its state: all services go, and the index goes backwards to
// index at the same time. Servers that start anew refuse connections before: see Break.
func (c *Consul) Lose(index uint64, name string, entries ...*api.ServiceEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index = index
	for other, s := range c.services {
		c.services[other] = service{index: index, entries: []*api.ServiceEntry{}, ttl: s.ttl}
	}
	c.services[name] = service{index: index, entries: entries, ttl: c.services[name].ttl}
	c.refreshAllLocked()
	for _, v := range c.views {
		v.index = index
	}
	c.broadcastLocked()
}

// Snapshot returns the instances and their indexes, for Restore.
func (c *Consul) Snapshot() Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Snapshot{maps.Clone(c.services)}
}

// Snapshot is what a Consul had at a time.
type Snapshot struct{ services map[string]service }

// Only returns the snapshot with only those instances of a service that keep accepts, as they were
// when they were registered.
func (s Snapshot) Only(name string, keep func(*api.ServiceEntry) bool) Snapshot {
	some := service{index: 1, ttl: s.services[name].ttl, entries: []*api.ServiceEntry{}}
	for _, e := range s.services[name].entries {
		if keep(e) {
			some.entries, some.index = append(some.entries, e), max(some.index, e.Service.ModifyIndex)
		}
	}
	services := maps.Clone(s.services)
	services[name] = some
	return Snapshot{services}
}

// Restore does what "consul snapshot restore" does: the instances and their indexes are those of s,
// and the index of the next change is higher than all before. A query that blocks ends early, with
// the old answer and index, but one that a view answers does not.
func (c *Consul) Restore(s Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services = maps.Clone(s.services)
	index := c.index
	c.index = 0
	for _, service := range c.services {
		c.index = max(c.index, service.index)
	}
	c.refreshAllLocked()
	for _, v := range c.views {
		v.index = min(v.index, c.index)
	}
	c.index = max(c.index, index)
	close(c.restored)
	c.restored = make(chan struct{})
}

// Break sets the fault.
func (c *Consul) Break(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = &f
	c.broadcastLocked()
}

// BreakProbes sets the status of responses to queries for the leader.
func (c *Consul) BreakProbes(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.probeStatus = status
}

// Heal ends the fault.
func (c *Consul) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault, c.probeStatus = nil, 0
	c.broadcastLocked()
}

// DisableStreaming makes the fake answer queries with an index like those without, like a
// Consul with use_streaming_backend false.
func (c *Consul) DisableStreaming() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plain = true
}

// Requests returns the queries so far, oldest first.
func (c *Consul) Requests() []Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Probes returns the number of queries for the leader.
func (c *Consul) Probes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.probes
}

func (c *Consul) broadcastLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// reply is the response to a query at a moment.
type reply struct {
	index     uint64
	streaming bool             // from the agent's materialized view
	send      func(why *Fault) // sends the response with the fault
}

// block answers a query after a fault, when the index exceeds the query's, or after its
// wait. look returns the present response, and is called with mu held.
func (c *Consul) block(r *http.Request, request Request, look func() reply) {
	wait := time.NewTimer(request.Wait)
	defer wait.Stop()
	for blocks := request.Index > 0; ; {
		c.mu.Lock()
		fault, changed := c.fault, c.changed
		c.mu.Unlock()
		faulty := fault != nil && (fault.Only == nil || fault.Only(request))
		if faulty && fault.Pause {
			select {
			case <-changed:
				continue
			case <-r.Context().Done():
				return
			}
		}
		c.mu.Lock()
		now, restored := look(), c.restored
		c.mu.Unlock()
		if now.streaming {
			restored = nil
		}
		if faulty && !(fault.Leaderless && now.streaming) {
			now.send(fault)
			return
		}
		if !blocks || now.index > request.Index {
			now.send(new(Fault))
			return
		}
		select {
		case <-changed:
		case <-restored:
			now.send(new(Fault))
			return
		case <-wait.C:
			blocks = false
		case <-r.Context().Done():
			return
		}
	}
}

// leader answers a query for the leader. It has the same faults as other queries, except
// faults of single responses.
func (c *Consul) leader(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	fault, status, changed := c.fault, c.probeStatus, c.changed
	c.probes++
	c.mu.Unlock()
	switch {
	case status != 0:
		fault = &Fault{Status: status}
	case fault == nil || fault.Only != nil:
		fault = new(Fault)
	}
	switch {
	case fault.Drop:
		panic(http.ErrAbortHandler)
	case fault.Hang:
		<-r.Context().Done()
	case fault.Pause:
		select {
		case <-changed:
			c.leader(w, r)
		case <-r.Context().Done():
		}
	case fault.Status != 0 && fault.Status != http.StatusOK:
		http.Error(w, fault.Body, fault.Status)
	case fault.NoLeader, fault.Leaderless:
		io.WriteString(w, `""`)
	default:
		io.WriteString(w, `"127.0.0.1:8300"`)
	}
}

// These are the only filters that the fake supports.
var (
	wantedID   = regexp.MustCompile(`\bService\.ID == "([^"]*)"`)
	wantedTag  = regexp.MustCompile(`"([^"]*)" in Service\.Tags`)
	wantedMeta = regexp.MustCompile("Service\\.Meta\\[`([^`]*)`\\] == `([^`]*)`")
)

// wanted returns the entries with all requested tags, with an id of filter, if it has ids, and
// with the meta value of filter, if it has one.
func wanted(entries []*api.ServiceEntry, tags []string, filter string) []*api.ServiceEntry {
	ids := wantedID.FindAllStringSubmatch(filter, -1)
	if tag := wantedTag.FindStringSubmatch(filter); tag != nil {
		tags = append(slices.Clone(tags), tag[1])
	}
	meta := wantedMeta.FindStringSubmatch(filter)
	some := []*api.ServiceEntry{}
	for _, e := range entries {
		if meta != nil && e.Service.Meta[meta[1]] != meta[2] {
			continue
		}
		named := ids == nil || slices.ContainsFunc(ids, func(id []string) bool { return id[1] == e.Service.ID })
		untagged := slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(e.Service.Tags, tag) })
		if named && !untagged {
			some = append(some, e)
		}
	}
	return some
}

func parse(name string, r *http.Request) Request {
	query := r.URL.Query()
	index, _ := strconv.ParseUint(query.Get("index"), 10, 64)
	wait, err := time.ParseDuration(query.Get("wait"))
	if err != nil {
		wait = 5 * time.Minute // like Consul
	}
	var seconds int
	_, _ = fmt.Sscanf(r.Header.Get("Cache-Control"), "max-age=%d", &seconds)
	return Request{
		MaxAge:     time.Duration(seconds) * time.Second,
		Time:       time.Now(),
		Path:       r.URL.Path,
		Service:    name,
		Index:      index,
		Wait:       wait,
		Consistent: query.Has("consistent"),
		Stale:      query.Has("stale"),
		Cached:     query.Has("cached"),
		Near:       query.Get("near"),
		Tags:       query["tag"],
		Filter:     query.Get("filter"),
		Datacenter: query.Get("dc"),
		Token:      r.Header.Get("X-Consul-Token"),
	}
}
