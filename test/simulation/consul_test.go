package simulation

import (
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	consulclient "sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	"sluice/test/discoverytest"
)

const (
	// recovery limits the time from the last failure of a Consul until its next answer
	// is used.
	recovery = 6 * time.Second
	// refusedRecovery is the same after a status 429.
	refusedRecovery = 20 * time.Second
	// hungRecovery is the same if queries go on to block as if nothing had happened:
	// those for services end with their wait, that for the catalog after a minute.
	hungRecovery = 75 * time.Second
)

// consul serves the instances of registries through the HTTP API of Consul, for the real source.
type consul struct {
	w          *world
	registries []*registry
	fake       *discoverytest.Consul
	pipe       *discoverytest.Pipe
	client     *consulclient.Client
	sources    *consulsource.Sources
	random     *rand.Rand

	probation time.Duration // negative: there is none
	plain     bool          // no view answers

	// w.mu guards the fields below.

	fault fault
	felt  bool      // no query was lost before, so the catalog notices at once
	since time.Time // when it began, or the last one ended
	known time.Time // when all will have noticed what has happened
	lied  time.Time // when a fault that lies last began or ended
}

// fault is how a Consul fails.
type fault struct {
	what string // empty: not at all
	how  discoverytest.Fault
	lies bool // it lists nothing, and vouches for it
	// silent reports whether the catalog may not notice the fault: it gets no answer,
	// or one with an unchanged index.
	silent bool
	// recovery is how long it is remembered; 0: for recovery.
	recovery time.Duration
}

var faults = []fault{
	{what: "drops connections", how: discoverytest.Fault{Drop: true}},
	{what: "hangs", how: discoverytest.Fault{Hang: true}, silent: true, recovery: hungRecovery},
	{what: "has no leader", how: discoverytest.Fault{Status: http.StatusInternalServerError, Body: "No cluster leader"}},
	{what: "has no leader and lists nothing", how: discoverytest.Fault{NoLeader: true, Empty: true}},
	{what: "limits queries", how: discoverytest.Fault{Status: http.StatusTooManyRequests}, recovery: refusedRecovery},
	{what: "answers with garbage", how: discoverytest.Fault{Body: `[{"Node":`}, silent: true},
	{what: "filters all by ACLs", how: discoverytest.Fault{Filtered: true, Empty: true}, recovery: hungRecovery},
	{what: "lists nothing", how: discoverytest.Fault{Empty: true}, lies: true},
}

func newConsul(w *world) *consul {
	c := &consul{w: w, fake: discoverytest.New(), random: w.random}
	switch c.probation = w.upTo(10 * time.Second); w.random.IntN(4) {
	case 0:
		c.probation = 0
	case 1, 2:
		c.probation += minProbation
	}
	c.pipe = discoverytest.ServePipe(c.fake)
	var err error
	c.client, err = consulclient.New(consulclient.Options{Addresses: []string{"http://consul"}, Random: locked(stream(w.seed, streamConsul, len(w.consuls))).Float64, Log: zerolog.Nop(), Dial: c.pipe.DialContext})
	if err != nil {
		panic(err)
	}
	c.sources = consulsource.NewSources(c.client, zerolog.Nop())
	if c.plain = c.random.IntN(2) == 0; c.plain {
		c.fake.DisableStreaming()
	}
	w.consuls = append(w.consuls, c)
	return c
}

func (c *consul) source(service string) discovery.Source {
	return c.sources.Source(consulsource.ServiceOptions{
		Service: service, Wait: 10 * time.Second, MinHealthy: 1, Probation: c.probation,
	})
}

func (c *consul) close() {
	c.client.Close()
	c.pipe.Close()
}

// publish makes the fake list the instances of a registry.
func (c *consul) publish(r *registry) {
	entries := make([]*api.ServiceEntry, len(r.entries))
	for n, i := range r.entries {
		e := discoverytest.Instance(i.Service, i.ID, i.Port)
		e.Service.Address = i.Address
		e.Service.Tags, e.Service.Meta = i.Tags, i.Meta
		discoverytest.OnNode(e, i.Node, i.Address)
		switch i.Status {
		case discovery.StatusWarning:
			discoverytest.Health(e, api.HealthWarning, "")
		case discovery.StatusCritical:
			discoverytest.Health(e, api.HealthCritical, "")
		case discovery.StatusMaintenance:
			discoverytest.Maintenance(e, "")
		}
		if i.Weight > 0 {
			e.Service.Weights = api.AgentWeights{Passing: i.Weight, Warning: i.Weight}
		}
		entries[n] = e
	}
	c.fake.Set(r.name, entries...)
	r.noteWritten(entries)
}

// written is a registration as Consul has it.
type written struct {
	service api.AgentService
	order   int // among all, by the time at which it was last written
}

func (r *registry) noteWritten(entries []*api.ServiceEntry) {
	before := r.written
	r.written = make(map[[2]string]written, len(entries))
	for _, e := range entries {
		key := [2]string{e.Node.Node, e.Service.ID}
		last, ok := before[key]
		if !ok || !reflect.DeepEqual(last.service, *e.Service) {
			r.writes++
			last = written{*e.Service, r.writes}
		}
		r.written[key] = last
	}
}

// weigh gives each process in service the weight of its registration that was written last.
func (r *registry) weigh(set map[discovery.Key]discovery.Instance) {
	for key, i := range set {
		newest := written{}
		for _, w := range r.written {
			if w.service.ID == i.ID && w.service.Address == i.Address && w.service.Port == i.Port && w.order > newest.order {
				newest = w
			}
		}
		if i.Serving() && newest.order > 0 {
			i.Weight = max(newest.service.Weights.Passing, 1)
			set[key] = i
		}
	}
}

// solid returns since when Consul works, or false if it fails.
func (c *consul) solid() (since time.Time, ok bool) {
	return c.known, c.fault.what == "" && !time.Now().Before(c.known)
}

func (c *consul) disturb() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	n := c.random.IntN(len(faults) + 4)
	switch {
	case n < len(faults):
		c.becomeLocked(faults[n])
	case n == len(faults):
		c.w.logf("Consul of %s starts its index again", c)
		c.fake.SetIndex(uint64(5 + c.random.IntN(5))) // above the registrations'
		c.noticedWithin(hungRecovery)                 // queries that block do so beyond the old one
	default:
		c.becomeLocked(fault{})
	}
}

func (c *consul) heal() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.becomeLocked(fault{})
}

func (c *consul) becomeLocked(f fault) {
	if c.fault.what == f.what {
		return
	}
	if c.fault.lies || f.lies {
		c.lied = time.Now()
	}
	_, solid := c.solid()
	c.felt = !f.silent && (solid || c.felt && c.fault.what != "")
	c.since = time.Now()
	c.noticedWithin(max(c.fault.recovery, recovery))
	if c.fault = f; f.what == "" {
		c.w.logf("Consul of %s works", c)
		c.fake.Heal()
		return
	}
	c.w.logf("Consul of %s %s", c, f.what)
	c.fake.Break(f.how)
}

func (c *consul) String() string {
	text := ""
	for _, r := range c.registries {
		text += r.name + " "
	}
	return text[:max(len(text)-1, 0)]
}

// noticedWithin returns how long a present change may stay unnoticed.
func (c *consul) noticedWithin(d time.Duration) {
	if end := time.Now().Add(d); end.After(c.known) {
		c.known = end
	}
}

// liedSince reports whether Consul has returned an empty, but valid list since a time.
func (c *consul) liedSince(t time.Time) bool { return c.fault.lies || !c.lied.Before(t) }

// maintain puts all registrations of a process into maintenance mode if one of them is.
func maintain(set map[discovery.Key]discovery.Instance, entries []discovery.Instance) {
	for key, i := range set {
		if slices.ContainsFunc(entries, func(e discovery.Instance) bool {
			return sameProcess(e, i) && e.Status == discovery.StatusMaintenance
		}) {
			i.Status, i.Weight = discovery.StatusMaintenance, 0
			set[key] = i
		}
	}
}
