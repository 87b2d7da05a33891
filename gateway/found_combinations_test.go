package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/config"
	"sluice/observe/wake"
	"sluice/test/discoverytest"
	"sluice/test/dnstest"
	"sluice/test/long"
	"sluice/test/verify"
)

// TestFoundCombinations sends requests and connections to services whose routes are in the tags of
// their instances, to one that moves between registries, and to one with a leader, while tags,
// instances, leaders, the configuration, the process and Consul change at random: Consul fails, and
// loses all that it has. While nothing changes, an answer is what the one state in force says.
// While something does, it is by a route of one of the states since the last settled one, from
// whichever instance of its service. No byte comes to a former leader. SLUICE_FOUND_COMBINATIONS is
// how many seeds run, and SLUICE_FOUND_COMBINATIONS_SEED the first.
func TestFoundCombinations(t *testing.T) {
	t.Parallel()
	servers := startFoundServers(t)
	eachSeed(t, "SLUICE_FOUND_COMBINATIONS", long.Count(t, uint64(3), 40), func(t *testing.T, seed uint64) { testFoundCombinations(t, servers, seed) })
}

// A foundRun is the run of a seed. Only the goroutine of the test changes states.
type foundRun struct {
	world
	servers    *foundServers
	databases  []*database
	registry   *keyOfLeader
	server     *httptest.Server       // of registry
	keys       map[string][]*askedKey // by service
	names      *dnstest.Server
	nameServer string
	port       *passedPort
	http3      *http3Client // of all generations

	exact      atomic.Int64 // answers to requests while nothing changed
	traced     []string
	differs    string
	index      uint64 // from which Consul counts
	writes     int    // of registrations
	away       bool   // Consul
	outages    bool   // in this seed; in others instances are deregistered
	losses     bool   // Consul also loses what it has
	replacing  bool   // a new process begins, which may not see each state
	leaderLost bool   // by Consul, and not registered again
	waits      bool   // requests for the service that moves, whose peers may have to pass a check first
	demoting   bool   // sessions of former leaders may go on

	mu sync.Mutex
	// mu guards the fields below.
	asks     []*ask
	files    timeline[*foundFile]
	services map[string]*timeline[*foundService]
	leader   timeline[string]     // "": none
	holder   map[*askedKey]string // who had what only one service can have, when all was settled
}

func pickOf[T any](random *rand.Rand, of ...T) T { return of[random.IntN(len(of))] }

func testFoundCombinations(t *testing.T, servers *foundServers, seed uint64) {
	c := &foundRun{servers: servers,
		registry: &keyOfLeader{Consul: discoverytest.New(), index: firstIndex, changed: make(chan struct{})}, index: firstIndex, names: dnstest.New(),
		keys: make(map[string][]*askedKey), services: make(map[string]*timeline[*foundService])}
	c.start(t, seed)
	t.Cleanup(c.explain)
	for _, name := range []string{"a", "b", "c"} {
		c.databases = append(c.databases, newDatabase(t, name))
	}
	for _, name := range foundServices {
		c.keys[name] = askedKeys(name)
	}
	c.registry.SetIndex(c.index)
	c.server = httptest.NewServer(c.registry)
	t.Cleanup(func() { c.server.CloseClientConnections(); c.server.Close() })
	c.nameServer = c.names.Listen(t)
	c.outages, c.waits = c.random.IntN(2) == 0, c.random.IntN(2) == 0
	c.losses = c.outages && c.random.IntN(3) > 0
	c.register()
	c.lead("a")
	c.files.publish(&foundFile{defined: make(map[string]string), divided: make(map[string]bool), dialects: []string{config.DialectSluice, config.DialectFabio, config.DialectTraefik}, shares: true, leadsBy: "tag", cuts: true,
		moving: moving{name: pickOf(c.random, foundServices...), source: "consul"}})
	c.port = newPassedPort(t)
	c.http3 = newHTTP3Client(nil, c.port.dial)
	t.Cleanup(c.http3.CloseIdleConnections)
	first := newRunning(t, c.write(c.files.latest()))
	first.port = c.port
	first.run(Options{})
	c.use(newFoundGeneration(first))
	c.current.Load().awaitReady()
	c.settle()

	loading, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for n := range uint64(8) {
		send := c.exchange
		switch n {
		case 4, 5:
			send = c.talk
		case 6, 7:
			send = c.connect
		}
		clients.Go(func() { c.load(loading, rand.New(rand.NewPCG(seed, 1+n)), send) })
	}
	for range 5 {
		if !c.failed.Load() {
			c.step()
		}
	}
	c.serve()
	c.settle()
	c.observe()
	stop()
	clients.Wait()
	c.end(c.http3.CloseIdleConnections)
	for _, d := range c.databases {
		verify.That(c.t, d.late.Load() == 0, "%s got %d lines after it was demoted", d.name, d.late.Load())
	}
}

func (c *foundRun) load(ctx context.Context, random *rand.Rand, send func(*rand.Rand) error) {
	wake.Every(ctx, 2*time.Millisecond, func() {
		if err := send(random); err != nil {
			c.fail(err)
		}
	})
}

func (c *foundRun) trace(format string, arguments ...any) {
	c.traced = append(c.traced, fmt.Sprintf("%s: ", time.Since(c.began))+fmt.Sprintf(format, arguments...))
}

func (c *foundRun) write(f *foundFile) string {
	text := c.text(f)
	c.compose(text)
	c.texts = append(c.texts, text)
	return text
}

// step changes what registries and the file say, and perhaps the process.
func (c *foundRun) step() {
	c.outage()
	if c.random.IntN(3) > 0 { // else a reload has to do all
		c.change()
	}
	old := c.current.Load()
	how := c.random.IntN(8)
	if c.away && c.files.settled < len(c.files.states)-1 {
		how = 7 // a new process would wait for what this one does not know yet
	}
	if how >= 3 && how <= 6 {
		old.await("the process before has ended with HTTP/3", func() bool { return c.port.isFree() || c.failed.Load() })
	}
	switch how {
	case 0, 1, 2:
		f := c.nextFile(c.away, false)
		c.publishFile(f)
		c.trace("reload to %d: %+v", f.number, f)
		old.replace(c.write(f))
	case 3, 4, 5:
		meanwhile, before := c.change, c.files.latest()
		if c.losses && !c.away && c.random.IntN(2) == 0 {
			c.awaitKnown()
			meanwhile = c.lose
		}
		f := c.nextFile(c.away, true)
		if f.leadsBy != before.leadsBy || f.inConsul(f.moving.name) != before.inConsul(f.moving.name) { // another source, which knows nothing yet
			meanwhile = c.change
		}
		c.publishFile(f)
		c.trace("upgrade to %d: %+v", f.number, f)
		c.replacing = true
		next := newFoundGeneration(old.upgrade(c.write(f), afterHandover(c.t, meanwhile)))
		c.replacing = false
		c.use(next)
		// What waits for a peer or a leader must get one for that.
		c.retire(old, func() { c.awaitInService(old.starting.TryLock) })
		c.awaitInService(func() bool { return c.port.left() || c.failed.Load() })
	case 6: // the new process does not find its peers
		c.trace("an upgrade that fails")
		text := strings.Replace(c.text(c.files.latest()), "services: {", fmt.Sprintf("services: {\"missing\":{\"file\":%q},", c.t.TempDir()+"/missing"), 1)
		text = strings.Replace(text, "routes: [", "routes: [{ host: missing.example.com, service: missing }, ", 1)
		old.succeed(text, nil, 50*time.Millisecond).fails()
	}
	if c.random.IntN(4) > 0 {
		c.settle()
		c.observe()
	}
}

// awaitInService waits for a condition, and brings everything into service if that takes long.
func (c *foundRun) awaitInService(condition func() bool) {
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for n := 0; !condition(); n++ {
		if <-pace.C; n == 25 {
			c.serve()
		}
	}
}

// settle waits until sluice does what the registries and the file say. What was before is not in
// force for what begins then.
func (c *foundRun) settle() {
	if c.away {
		return
	}
	g := c.current.Load()
	g.await("the pools have what is registered", func() bool { return c.pooled(g) || c.failed.Load() })
	g.tags.Await(context.Background(), 4*patience)
	verify.That(c.t, c.pooled(g) || c.failed.Load(), "seed %d: the pools have something else again", c.seed)
	leader := c.leader.latest()
	for n, g := range c.all {
		g.await(fmt.Sprintf("generation %d knows that %q leads", n, leader), func() bool { return wake.Closed(g.ended) || g.leader() == leader })
	}
	c.settled()
	c.trace("settled")
	for _, d := range c.databases {
		if d.name != leader && !c.demoting {
			g.await(d.name+" has no session", func() bool { return d.open.Load() == 0 })
			d.retired.Store(true)
		}
	}
}

// observe waits until some requests have met nothing but the settled state.
func (c *foundRun) observe() {
	moving := c.services[c.files.latest().moving.name].latest()
	if c.away || c.waits && slices.ContainsFunc(moving.instances, func(i foundInstance) bool { return !i.usable() }) {
		return // a route may have no peer, for which all clients wait
	}
	enough := c.exact.Load() + 25
	c.current.Load().await("requests meet the settled state", func() bool { return c.exact.Load() >= enough || c.failed.Load() })
}

// pooled reports whether the pools of a generation have the instances that are registered, with
// their tags.
func (c *foundRun) pooled(g *generation) bool {
	f := c.files.latest()
	for _, name := range foundServices {
		s, pool := c.services[name].latest(), g.services.pool(name)
		var want, got []string
		found := f.defines(name)
		for n := range s.instances {
			i := &s.instances[n]
			tags, meta := i.tags()
			found = found || slices.ContainsFunc(tags, func(tag string) bool { return f.reads(dialectOf(tag)) }) || meta["sluice_route"] != "" && f.reads(config.DialectSluice)
			if f.inConsul(name) {
				want = append(want, fmt.Sprintf("%s %t %t %q %v", i.address, i.usable(), i.onProbation(), tags, meta))
			}
		}
		if !f.inConsul(name) {
			for _, address := range f.moving.addresses {
				want = append(want, fmt.Sprintf("%s true false [] map[]", address))
			}
		}
		if pool == nil {
			if found {
				return false
			}
			continue
		}
		for _, p := range pool.Snapshot().All {
			i := p.Instance()
			got = append(got, fmt.Sprintf("%s %t %t %q %v", i.HostPort(), i.Usable(), !i.Probation.IsZero(), i.Tags, i.Meta))
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			c.differs = fmt.Sprintf("%s: want %q, got %q", name, want, got)
			return false
		}
	}
	return true
}

// serve brings everything into service.
func (c *foundRun) serve() {
	if c.away {
		c.heal()
	}
	for _, name := range foundServices {
		for _, i := range c.services[name].latest().instances {
			if i.out != "" {
				c.edit(name, func(s *foundService) { s.named(i.name).out, s.named(i.name).lost = "", false })
			}
		}
	}
	if c.leader.latest() == "" {
		for _, d := range c.databases {
			if c.mayLead(d.name) {
				c.lead(d.name)
				break
			}
		}
	}
	c.trace("everything is in service")
}

func (c *foundRun) explain() {
	if !c.t.Failed() {
		return
	}
	c.t.Logf("%s", c.differs)
	c.t.Logf("%s", strings.Join(c.traced, "\n"))
}
