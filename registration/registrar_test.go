package registration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/discovery/consul"
)

// inBubble runs test with a registrar of f in virtual time.
func inBubble(t *testing.T, f func() *fake, s *Settings, test func(t *testing.T, f *fake, r *Registrar, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := f()
		r := New(Options{Consul: f, Self: someSelf, Ready: func() (bool, []string) { return true, nil }, Log: zerolog.New(zerolog.NewTestWriter(t)), Outbound: func(string) string { return "10.0.0.7" }})
		r.Set(s)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		stop := func() {
			cancel()
			running.Wait()
		}
		defer stop()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		test(t, f, r, stop)
	})
}

const someID = "sluice-web1-8080"

func oneAgent() *fake  { return newFake("a") }
func twoAgents() *fake { return newFake("a", "b") }

func TestNothingIsAskedUnlessConfigured(t *testing.T) {
	inBubble(t, twoAgents, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		time.Sleep(24 * time.Hour)
		if calls := f.take(""); len(calls) > 0 || r.Status().State != StateOff {
			t.Errorf("calls %q, status %+v", calls, r.Status())
		}
		stop()
		r.Leave(t.Context())
		if calls := f.take(""); len(calls) > 0 {
			t.Errorf("calls %q", calls)
		}
	})
}

func TestSteadyStateCostsOneLookInTenSeconds(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		if calls := f.take(""); !slices.Equal(calls, []string{"look a", "register a", "look b"}) {
			t.Errorf("at the start: %q", calls)
		}
		time.Sleep(10 * time.Minute)
		calls := f.take("")
		if n := len(calls); n < 54 || n > 67 || slices.ContainsFunc(calls, func(c string) bool { return c != "look a" }) {
			t.Errorf("in 10 minutes %d calls: %q", n, calls)
		}
	})
}

func TestForgottenSilently(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { clear(a.services) })
		time.Sleep(11 * time.Second)
		if got := f.has("a"); got != someID {
			t.Errorf("the agent has %q", got)
		}
	})
}

func TestChangedByAnother(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) {
			other := *a.services[someID]
			other.Port = 1
			a.services[someID] = &other
		})
		time.Sleep(11 * time.Second)
		f.set("a", func(a *fakeAgent) {
			if a.services[someID].Port != 8080 {
				t.Error("it is still changed")
			}
		})
	})
}

func TestBackoff(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		f.take("")
		time.Sleep(20 * time.Minute)
		// 30 s apart, give or take a half, after the first few.
		if n := len(f.take("")); n < 27 || n > 90 {
			t.Errorf("%d attempts in 20 minutes", n)
		}
		s := r.Status()
		if s.State != StateFailing || s.LastError != "connection refused" || s.Errors < 27 {
			t.Errorf("status %+v", s)
		}
		f.set("a", func(a *fakeAgent) { a.err = nil })
		f.use("a") // as the client tells when the agent answers again
		time.Sleep(time.Second)
		if s := r.Status(); s.State != StateRegistered || s.LastError != "" {
			t.Errorf("after a second: %+v", s)
		}
	})
}

func TestTTLIsKeptUp(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckTTL), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.take("")
		// An agent that hangs, and has the service as far as is known, does not keep
		// the reports from the one in use.
		f.set("a", func(a *fakeAgent) { a.hangs = true })
		f.use("b")
		time.Sleep(10 * time.Minute)
		f.mu.Lock()
		var last time.Time
		reports := 0
		for _, c := range f.calls {
			if !strings.HasPrefix(c.what, "report b passing") {
				continue
			}
			if reports++; !last.IsZero() && c.at.Sub(last) > 12*time.Second {
				t.Errorf("%v between two reports", c.at.Sub(last))
			}
			last = c.at
		}
		f.mu.Unlock()
		if reports < 50 || reports > 90 {
			t.Errorf("%d reports in 10 minutes", reports)
		}
		f.set("b", func(a *fakeAgent) { clear(a.services) })
		time.Sleep(11 * time.Second)
		if got := f.has("b"); got != someID {
			t.Errorf("after it was forgotten, the agent has %q", got)
		}
	})
}

func TestTTLSaysWhyItIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("a")
		r := New(Options{Consul: f, Self: someSelf, Ready: func() (bool, []string) { return false, []string{"sluice is stopping"} }})
		r.Set(withCheck(CheckTTL))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		time.Sleep(time.Second)
		cancel()
		running.Wait()
		if calls := f.take("report"); len(calls) == 0 || calls[0] != "report a critical sluice is stopping" {
			t.Errorf("got %q", calls)
		}
	})
}

// The other agent has it before the former one is asked to forget it; and is
// asked until it can be.
func TestFailover(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.take("")
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		f.use("b")
		time.Sleep(time.Second)
		if got := f.has("b"); got != someID {
			t.Errorf("after a second the other agent has %q", got)
		}
		if s := r.Status(); !slices.Equal(s.Leftovers, []string{"a"}) || s.Agent != "b" {
			t.Errorf("status %+v", s)
		}
		time.Sleep(time.Hour)
		f.set("a", func(a *fakeAgent) { a.err = nil })
		f.take("")
		time.Sleep(46 * time.Second) // the longest pause
		if got := f.has("a"); got != "" {
			t.Errorf("the former agent still has %q", got)
		}
		// And back: the other way round, in order.
		f.take("")
		f.use("a")
		time.Sleep(time.Second)
		var changes []string
		for _, c := range f.take("") {
			if !strings.HasPrefix(c, "look") {
				changes = append(changes, c)
			}
		}
		if want := []string{"register a", "deregister b " + someID}; !slices.Equal(changes, want) {
			t.Errorf("got %q, want %q", changes, want)
		}
	})
}

// While the agent in use refuses, the former one keeps what it has.
func TestNeverNotAtAll(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("b", func(a *fakeAgent) { a.err = errors.New("403") })
		f.use("b")
		time.Sleep(time.Hour)
		if got := f.has("a"); got != someID {
			t.Errorf("the former agent has %q", got)
		}
		f.set("b", func(a *fakeAgent) { a.err = nil })
		time.Sleep(46 * time.Second)
		if a, b := f.has("a"), f.has("b"); a != "" || b != someID {
			t.Errorf("the agents have %q and %q", a, b)
		}
	})
}

// The address of this machine that an agent elsewhere is reached from is kept
// while it cannot be found out; without one nothing is registered, since Consul
// would take the agent's.
func TestAddressForAnAgentElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake("http://consul.example.com:8500")
		self := someSelf
		self.Listener = "[::]:8080"
		var known atomic.Bool
		r := New(Options{Consul: f, Self: self, Ready: func() (bool, []string) { return true, nil }, Outbound: func(string) string {
			if known.Load() {
				return "10.0.0.7"
			}
			return ""
		}})
		r.Set(withCheck(CheckNone))
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		time.Sleep(time.Minute)
		if s := r.Status(); s.State != StateFailing || !strings.Contains(s.LastError, "set consul.register.address") || f.has(f.inUse) != "" {
			t.Errorf("status %+v", s)
		}
		known.Store(true)
		time.Sleep(time.Minute)
		known.Store(false)
		time.Sleep(time.Minute)
		f.set(f.inUse, func(a *fakeAgent) {
			if s := a.services[someID]; s == nil || s.Address != "10.0.0.7" || r.Status().Registrations != 1 {
				t.Errorf("got %+v", s)
			}
		})
		cancel()
		running.Wait()
	})
}

// Another id is registered before the former one is taken away; and an agent
// that refuses to do that does not keep the reports from it.
func TestAnotherID(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckTTL), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { a.keeps = errors.New("403") })
		f.take("")
		s := withCheck(CheckTTL)
		s.ID = "edge-1"
		r.Set(s)
		time.Sleep(time.Second)
		if got := f.has("a"); got != "edge-1 "+someID {
			t.Errorf("the agent has %q", got)
		}
		calls := f.take("")
		if register, deregister := slices.Index(calls, "register a"), slices.Index(calls, "deregister a "+someID); register < 0 || deregister < register {
			t.Errorf("calls %q", calls)
		}
		if s := r.Status(); s.State != StateRegistered || s.ID != "edge-1" || !slices.Equal(s.Leftovers, []string{"a"}) {
			t.Errorf("status %+v", s)
		}
		time.Sleep(10 * time.Minute)
		if n := len(f.take("report a passing")); n < 50 {
			t.Errorf("%d reports in 10 minutes", n)
		}
		f.set("a", func(a *fakeAgent) { a.keeps = nil })
		time.Sleep(12 * time.Second)
		if got := f.has("a"); got != "edge-1" || len(r.Status().Leftovers) > 0 {
			t.Errorf("the agent has %q, status %+v", got, r.Status())
		}
	})
}

// What others have registered, also other replicas, is left alone.
func TestOthersAreLeftAlone(t *testing.T) {
	f := func() *fake {
		f := newFake("a", "b")
		for n, url := range f.urls {
			id := fmt.Sprintf("other-%d", n)
			f.agents[url].services[id] = &api.AgentServiceRegistration{ID: id, Name: "sluice", Meta: map[string]string{MetaReplica: "web2/127.0.0.1:8081"}}
		}
		return f
	}
	inBubble(t, f, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, stop func()) {
		f.use("b")
		time.Sleep(time.Minute)
		stop()
		r.Leave(t.Context())
		if a, b := f.has("a"), f.has("b"); a != "other-0" || b != "other-1" {
			t.Errorf("the agents have %q and %q", a, b)
		}
	})
}

func TestManyChangesAreFewRegistrations(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.take("")
		for n := range 1000 {
			s := withCheck(CheckNone)
			s.ConfigHash = fmt.Sprint(n)
			r.Set(s)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := len(f.take("register")); n > 4 {
			t.Errorf("%d registrations", n)
		}
		f.set("a", func(a *fakeAgent) {
			if got := a.services[someID].Meta[MetaConfig]; got != "999" {
				t.Errorf("the last one is not there but %q", got)
			}
		})
	})
}

// A stop while the agent hangs is bounded, and takes away what the agent may
// have taken meanwhile.
func TestStopWhileTheAgentHangs(t *testing.T) {
	inBubble(t, oneAgent, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		f.set("a", func(a *fakeAgent) { a.takes = true })
		r.Set(withCheck(CheckNone))
		time.Sleep(time.Second)
		if calls := f.take("register"); len(calls) != 1 || r.Status().State != StatePending {
			t.Errorf("calls %q, status %+v", calls, r.Status())
		}
		begin := time.Now()
		stop()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r.Leave(ctx)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		if calls := f.take("deregister"); len(calls) != 1 {
			t.Errorf("got %q", calls)
		}
	})
}

// An agent that breaks the connection may have taken what it was sent: it is asked
// to deregister it, when another one is used and when this sluice stops.
func TestRegistrationWhoseAnswerGotLost(t *testing.T) {
	loses := func(f *fake) { f.set("a", func(a *fakeAgent) { a.loses = true }) }
	inBubble(t, twoAgents, nil, func(t *testing.T, f *fake, r *Registrar, _ func()) {
		loses(f)
		r.Set(withCheck(CheckNone))
		time.Sleep(time.Second)
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		f.use("b")
		time.Sleep(time.Second)
		if s := r.Status(); s.Agent != "b" || !slices.Equal(s.Leftovers, []string{"a"}) {
			t.Errorf("status %+v", s)
		}
		f.set("a", func(a *fakeAgent) { a.err = nil })
		time.Sleep(46 * time.Second) // the longest pause
		if a := f.has("a"); a != "" || len(r.Status().Leftovers) > 0 {
			t.Errorf("the former agent has %q, status %+v", a, r.Status())
		}
	})
	inBubble(t, oneAgent, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		loses(f)
		r.Set(withCheck(CheckNone))
		time.Sleep(500 * time.Millisecond)
		stop()
		r.Leave(t.Context())
		if a := f.has("a"); a != "" {
			t.Errorf("the agent still has %q", a)
		}
	})
}

func TestMayHaveTaken(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for what, c := range map[string]struct {
		err  error
		want bool
	}{
		"refused connection": {refused, false},
		"refused afterwards": {fmt.Errorf("%w: %w", consul.ErrRegistered, refused), true},
		"reset connection":   {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, true},
		"end of connection":  {io.EOF, true},
		"no answer in time":  {context.DeadlineExceeded, true},
	} {
		if got := mayHaveTaken(fmt.Errorf("consul: %w", c.err)); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
