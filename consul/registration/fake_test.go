package registration

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
)

// fake is Consul with agents in memory.
type fake struct {
	mu      sync.Mutex // guards the fields below
	agents  map[string]*fakeAgent
	urls    []string
	inUse   string
	changed chan struct{}
	calls   []call
	sick    bool // the service

	behind []string      // agents behind the URL balancer
	next   func(int) int // the one of n for the next request
}

type fakeAgent struct {
	services map[string]*api.AgentServiceRegistration
	err      error // of every request
	keeps    error // of every request to deregister
	ignores  error // of every report
	hangs    bool  // until ctx ends
	takes    bool  // registrations all the same, while it hangs
	dead     bool  // for the other agents
	loses    bool  // the answer to a registration, which it takes

	slow time.Duration // until it has taken a registration, whether or not somebody waits for that
}

// call is a request that an agent got.
type call struct {
	at   time.Time
	what string // "register a", "deregister a sluice-web1-8080", "look a", "report a passing"
}

func newFake(urls ...string) *fake {
	f := &fake{agents: make(map[string]*fakeAgent), urls: urls, inUse: urls[0], changed: make(chan struct{})}
	for _, url := range urls {
		f.agents[url] = &fakeAgent{services: make(map[string]*api.AgentServiceRegistration)}
	}
	return f
}

// options returns those of a registrar of f.
func (f *fake) options() Options {
	outbound := func(string) string { return "10.0.0.7" }
	return Options{Consul: f, Self: someSelf.Self(), Ready: f.ready, Log: zerolog.Nop(), Outbound: outbound}
}

// ready is Options.Ready.
func (f *fake) ready(context.Context) (bool, []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.sick, nil
}

func (f *fake) URL() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inUse
}

func (f *fake) URLs() []string      { return f.urls }
func (f *fake) KeepProbing() func() { return func() {} }

func (f *fake) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// use changes the agent in use.
func (f *fake) use(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inUse = url
	close(f.changed)
	f.changed = make(chan struct{})
}

// set changes an agent.
func (f *fake) set(url string, change func(*fakeAgent)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f.agents[url])
}

// do records a request and returns the agent's error, or nil with f locked.
func (f *fake) do(ctx context.Context, url, what string) (*fakeAgent, error) {
	f.mu.Lock()
	f.calls = append(f.calls, call{time.Now(), what})
	a := f.agents[url]
	if url == balancer {
		a = f.agents[f.behind[f.next(len(f.behind))]]
	}
	err, hangs := a.err, a.hangs
	if hangs || err != nil {
		f.mu.Unlock()
	}
	if hangs {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return a, err
}

func (f *fake) Register(ctx context.Context, url string, r *api.AgentServiceRegistration, _ ...string) error {
	f.set(url, func(a *fakeAgent) {
		if a.takes {
			a.services[r.ID], a.hangs = r, true
		}
	})
	a, err := f.do(ctx, url, "register "+url)
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	if a.slow > 0 {
		taken := make(chan struct{})
		time.AfterFunc(a.slow, func() {
			f.set(url, func(a *fakeAgent) { a.services[r.ID] = r })
			close(taken)
		})
		f.mu.Unlock()
		defer f.mu.Lock()
		select {
		case <-taken:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	a.services[r.ID] = r
	if a.loses {
		return io.EOF
	}
	return nil
}

func (f *fake) Deregister(ctx context.Context, url, _, id string) error {
	a, err := f.do(ctx, url, "deregister "+url+" "+id)
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	if a.keeps != nil {
		return a.keeps
	}
	if a.services[id] == nil {
		return consul.ErrNotRegistered
	}
	delete(a.services, id)
	return nil
}

// Listed returns what all agents have.
func (f *fake) Listed(ctx context.Context, url, service, key, value string) ([]*api.ServiceEntry, error) {
	if _, err := f.do(ctx, url, "list "+url); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var list []*api.ServiceEntry
	for node, a := range f.agents {
		for _, s := range a.services {
			if s.Name != service || s.Meta[key] != value {
				continue
			}
			checks := api.HealthChecks{{CheckID: "serfHealth", Status: api.HealthPassing}}
			if a.dead {
				checks[0].Status = api.HealthCritical
			}
			if s.Check != nil {
				checks = append(checks, &api.HealthCheck{CheckID: s.Check.CheckID})
			}
			list = append(list, &api.ServiceEntry{Node: &api.Node{Node: node}, Checks: checks,
				Service: &api.AgentService{ID: s.ID, Service: s.Name, Tags: s.Tags, Meta: maps.Clone(s.Meta), Port: s.Port, Address: s.Address}})
		}
	}
	return list, nil
}

func (f *fake) Registered(ctx context.Context, url, key, value string) ([]*api.AgentService, error) {
	a, err := f.do(ctx, url, "look "+url)
	if err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var list []*api.AgentService
	for _, s := range a.services {
		if s.Meta[key] == value {
			list = append(list, &api.AgentService{ID: s.ID, Service: s.Name, Tags: s.Tags, Meta: maps.Clone(s.Meta), Port: s.Port, Address: s.Address})
		}
	}
	return list, nil
}

func (f *fake) Report(ctx context.Context, url, _, id, status, output string) error {
	a, err := f.do(ctx, url, strings.TrimSpace("report "+url+" "+status+" "+output))
	if err != nil {
		return err
	}
	defer f.mu.Unlock()
	if a.ignores != nil {
		return a.ignores
	}
	for _, s := range a.services {
		if s.Check != nil && s.Check.CheckID == id {
			return nil
		}
	}
	return consul.ErrNotRegistered
}

// take returns the recorded requests with prefix, and removes all.
func (f *fake) take(prefix string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []string
	for _, c := range f.calls {
		if strings.HasPrefix(c.what, prefix) {
			list = append(list, c.what)
		}
	}
	f.calls = nil
	return list
}

// has returns the ids that an agent has, sorted.
func (f *fake) has(url string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(slices.Sorted(maps.Keys(f.agents[url].services)), " ")
}
