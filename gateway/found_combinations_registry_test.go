package gateway

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/test/discoverytest"
)

// marks are what was settled when something began.
type marks struct {
	file, leader int
	services     map[string]int
	holder       map[*askedKey]string
}

func (c *foundRun) since() marks {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := marks{file: c.files.settled, leader: c.leader.settled, services: make(map[string]int), holder: c.holder}
	for name, l := range c.services {
		m.services[name] = l.settled
	}
	return m
}

// keep adds a new ask to those that are known.
func (c *foundRun) keep(a *ask) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asks = append(c.asks, a)
}

func (c *foundRun) known(number int) *ask {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asks[number]
}

func (c *foundRun) publishFile(f *foundFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files.publish(f)
}

// settled notes that the latest states are in force, and no other ones.
func (c *foundRun) settled() {
	holder := make(map[*askedKey]string)
	for _, r := range c.current.Load().tags.InUse().Routes {
		for _, key := range []*askedKey{contestedKey, anyNameKey, plainKey} {
			if r.Host == key.host && r.Protocol == key.protocol {
				holder[key] = r.By.Service
			}
		}
	}
	c.demoting = slices.ContainsFunc(c.files.states[c.files.settled:], func(f *foundFile) bool { return !f.cuts }) || c.demoting && c.busy()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holder = holder
	c.files.settle()
	c.leader.settle()
	for _, l := range c.services {
		l.settle()
	}
}

// busy reports whether a database that does not lead has sessions.
func (c *foundRun) busy() bool {
	return slices.ContainsFunc(c.databases, func(d *database) bool { return d.name != c.leader.latest() && d.open.Load() > 0 })
}

// during returns the configurations, and the states of each service that may have got a request,
// that may have been in force since marks.
func (c *foundRun) during(q foundRequest, m marks) (files []*foundFile, services [][]*foundService) {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := concerned(q)
	if files = slices.Clone(c.files.states[m.file:]); q.host == movingHost {
		names = []string{files[0].moving.name}
	}
	for _, name := range names {
		services = append(services, slices.Clone(c.services[name].states[m.services[name]:]))
	}
	return files, services
}

// concerned returns the services that may get a request.
func concerned(q foundRequest) []string {
	for _, name := range foundServices {
		if strings.TrimPrefix(q.host, "t.") == name+".example.com" {
			return []string{name}
		}
	}
	return foundServices
}

// leaders returns who may have led since marks, and whether a session of who has not may have been
// cut.
func (c *foundRun) leaders(m marks) (names map[string]bool, cuts bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	names = make(map[string]bool)
	for _, name := range c.leader.states[m.leader:] {
		names[name] = true
	}
	return names, slices.ContainsFunc(c.files.states[m.file:], func(f *foundFile) bool { return f.cuts })
}

func (c *foundRun) register() {
	for _, name := range foundServices {
		c.services[name] = &timeline[*foundService]{states: []*foundService{{name: name}}}
		for range 1 + c.random.IntN(3) {
			c.join(name)
		}
	}
}

// edit changes the state of a service, and registers it. No two states since the last settled one
// look alike to pooled: an instance registers again for that.
func (c *foundRun) edit(name string, change func(*foundService)) {
	known := c.services[name]
	s := *known.latest()
	s.instances = slices.Clone(s.instances)
	if change(&s); !c.away {
		s.release()
	}
	shown := func(s *foundService) (all []string) {
		for _, i := range s.instances {
			all = append(all, fmt.Sprint(i.name, i.registered, i.usable(), i.lost)) // what has other tags is written again
		}
		return append(all, fmt.Sprint(s.forgotten))
	}
	if slices.Equal(shown(&s), shown(known.latest())) {
		return // nothing changes
	}
	if slices.ContainsFunc(known.states[known.settled:], func(o *foundService) bool { return slices.Equal(shown(o), shown(&s)) }) {
		c.writes++
		s.instances[slices.IndexFunc(s.instances, func(i foundInstance) bool { return !i.lost })].registered = c.writes
	}
	losing := known.latest().lost()
	c.publishService(&s)
	if c.registerService(&s); losing && !c.away {
		c.awaitPooled("before a probation ends")
	}
}

func (c *foundRun) publishService(s *foundService) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services[s.name].publish(s)
}

// registerService tells Consul of those instances that it has not lost.
func (c *foundRun) registerService(s *foundService) {
	var entries []*api.ServiceEntry
	for n := range s.instances {
		i := &s.instances[n]
		if i.lost {
			continue
		}
		e := discoverytest.Instance(s.name, i.name, port(c.t, i.address))
		e.Service.Tags, e.Service.Meta = i.tags()
		switch i.out {
		case "critical":
			discoverytest.Health(e, api.HealthCritical, "it does not work")
		case "maintenance":
			discoverytest.Maintenance(e, "by the test")
		}
		entries = append(entries, e)
	}
	c.registry.Set(s.name, entries...)
}

func (c *foundRun) join(name string) {
	for n, address := range c.servers.addresses[name] {
		id := fmt.Sprint(name, "-", n+1)
		if slices.ContainsFunc(c.services[name].latest().instances, func(i foundInstance) bool { return i.name == id }) {
			continue
		}
		c.edit(name, func(s *foundService) {
			s.instances = append(s.instances, c.retag(name, foundInstance{name: id, address: address}))
		})
		return
	}
}

// retag gives an instance other tags, some of them those of others.
func (c *foundRun) retag(name string, i foundInstance) foundInstance {
	var others []*ask
	for _, o := range c.services[name].latest().instances {
		others = append(others, o.asks...)
	}
	before := i.asks
	tagsBefore, metaBefore := i.tags()
	i.asks, i.upstream = nil, pickOf(c.random, i.upstream, i.upstream, "", "", "", "", "", "h2c", wrongUpstream)
	for _, key := range c.keys[name] {
		has := func(a *ask) bool { return a.askedKey == key }
		n, m := slices.IndexFunc(others, has), slices.IndexFunc(before, has)
		switch choice := c.random.IntN(6); {
		case choice < 2 && n >= 0:
			i.asks = append(i.asks, others[n])
		case choice < 4 && m >= 0:
			i.asks = append(i.asks, before[m])
		case choice == 5 || key.restricted:
			i.asks = append(i.asks, c.newAsk(key))
		}
	}
	if tags, meta := i.tags(); i.registered == 0 || !slices.Equal(tags, tagsBefore) || !maps.Equal(meta, metaBefore) { // else Consul does not count it
		c.writes++
		i.registered = c.writes
	}
	c.trace("%s asks for %v, upstream %q", i.name, i.asks, i.upstream)
	return i
}

// change changes something in Consul, several times.
func (c *foundRun) change() {
	for range 1 + c.random.IntN(4) {
		name := pickOf(c.random, foundServices...)
		instances := c.services[name].latest().instances
		n := c.random.IntN(len(instances))
		if c.services[name].latest().lost() && c.replacing {
			continue // nobody can tell which states the new process sees
		}
		if instances[n].lost && c.random.IntN(3) > 0 {
			c.trace("%s registers again", instances[n].name)
			c.edit(name, func(s *foundService) { s.instances[n].lost = false })
			continue
		}
		switch c.random.IntN(7) {
		case 0, 1:
			i := c.retag(name, instances[n])
			i.lost = false
			c.edit(name, func(s *foundService) { s.instances[n] = i })
		case 2:
			out := pickOf(c.random, "", "critical", "maintenance")
			if others := slices.Delete(slices.Clone(instances), n, n+1); !c.outages && !slices.ContainsFunc(others, func(i foundInstance) bool { return i.usable() }) {
				out = "" // else one that has left is used on probation
			}
			c.trace("%s is %q", instances[n].name, out)
			c.edit(name, func(s *foundService) { s.instances[n].out, s.instances[n].lost = out, false })
		case 3:
			c.trace("an instance of %s joins", name)
			c.join(name)
		case 4:
			others := slices.Delete(slices.Clone(instances), n, n+1)
			if !c.outages && slices.ContainsFunc(others, func(i foundInstance) bool { return i.usable() }) {
				c.trace("%s leaves", instances[n].name)
				c.edit(name, func(s *foundService) { s.instances = others })
			}
		case 5:
			if next := pickOf(c.random, "a", "b", "c", ""); c.mayLead(next) {
				c.trace("%q leads", next)
				c.lead(next)
			}
		case 6:
			c.remind(name)
			c.restoreLeader()
		}
	}
}

// mayLead reports whether a database may lead next: one that has led since the last settled state
// may not, as settle could not tell one time from the other, and one must be left if none leads.
func (c *foundRun) mayLead(name string) bool {
	led := c.leader.states[c.leader.settled:]
	return !slices.Contains(led, name) && (name != "" || !c.outages && len(led) < len(c.databases))
}

// lead says who leads: by the key, by tags, and by checks.
func (c *foundRun) lead(name string) {
	for _, d := range c.databases {
		if d.name == name {
			d.retired.Store(false)
		}
	}
	c.mu.Lock()
	c.leader.publish(name)
	c.mu.Unlock()
	c.registerLeader(name)
}

// registerLeader tells Consul of the databases, and who leads.
func (c *foundRun) registerLeader(name string) {
	c.leaderLost = false
	var entries []*api.ServiceEntry
	for _, d := range c.databases {
		e := discoverytest.Instance("db", "db/"+d.name, d.port)
		if d.name != name {
			discoverytest.Health(e, api.HealthWarning, "it follows")
		} else {
			e.Service.Tags = []string{"primary"}
		}
		entries = append(entries, e)
	}
	c.registry.Consul.Set("db", entries...)
	c.registry.change(func() {
		c.registry.index++
		c.registry.holder = name
	})
}

// outage lets Consul fail, or lose what it has, or ends that.
func (c *foundRun) outage() {
	switch {
	case !c.outages:
	case c.away:
		if c.random.IntN(2) == 0 {
			c.heal()
		}
	case c.losses && c.random.IntN(4) == 0:
		c.awaitKnown()
		c.lose()
	case c.random.IntN(3) == 0:
		loses := c.losses && c.random.IntN(2) == 0
		if loses {
			c.awaitKnown()
		}
		fault := pickOf(c.random, discoverytest.Fault{Drop: true}, discoverytest.Fault{Pause: true}, discoverytest.Fault{Status: http.StatusInternalServerError},
			discoverytest.Fault{Empty: true, NoLeader: true}, discoverytest.Fault{Empty: true, Filtered: true})
		c.trace("Consul fails: %+v", fault)
		c.away = true
		c.registry.Break(fault)
		c.registry.change(func() { c.registry.broken = true })
		if loses {
			c.lose()
		}
	}
}

func (c *foundRun) heal() {
	c.trace("Consul works")
	c.away = false
	for _, name := range foundServices {
		s := *c.services[name].latest()
		s.instances = slices.Clone(s.instances)
		s.release() // who has come meanwhile is seen now
		c.publishService(&s)
	}
	c.registry.Heal()
	c.registry.change(func() { c.registry.broken = false })
	if c.losses {
		c.awaitPooled("before a probation ends")
	}
}
