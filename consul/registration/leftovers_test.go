package registration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/test/verify"
)

// The other agent has the registration before the previous one is asked to deregister it,
// which is retried.
func TestFailover(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.take("")
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		f.use("b")
		time.Sleep(time.Second)
		verify.Equal(t, f.has("b"), someID, "after a second the other agent")
		s := r.Status()
		verify.That(t, slices.Equal(s.Leftovers, []string{"a"}) && s.Agent == "b", "status %+v", s)
		time.Sleep(time.Hour)
		f.set("a", func(a *fakeAgent) { a.err = nil })
		f.take("")
		time.Sleep(46 * time.Second) // the longest pause
		verify.Equal(t, f.has("a"), "", "the previous agent still")
		// And back, in this order.
		f.take("")
		f.use("a")
		time.Sleep(time.Second)
		var changes []string
		for _, c := range f.take("") {
			if !strings.HasPrefix(c, "look") && !strings.HasPrefix(c, "list") {
				changes = append(changes, c)
			}
		}
		verify.Slices(t, changes, []string{"register a", "deregister b " + someID}, "changes")
	})
}

// While the agent in use refuses, the previous one keeps the registration.
func TestRegistrationIsNeverMissing(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("b", func(a *fakeAgent) { a.err = errors.New("403") })
		f.use("b")
		time.Sleep(time.Hour)
		verify.Equal(t, f.has("a"), someID, "the previous agent")
		f.set("b", func(a *fakeAgent) { a.err = nil })
		time.Sleep(46 * time.Second)
		verify.Equal(t, f.has("a"), "", "the previous agent")
		verify.Equal(t, f.has("b"), someID, "the agent in use")
	})
}

// Another id is registered before the previous one is deregistered. An agent that refuses
// the deregistration still gets reports.
func TestAnotherID(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckTTL), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { a.keeps = errors.New("403") })
		f.take("")
		s := withCheck(CheckTTL)
		s.ID = "edge-1"
		r.Set(s)
		time.Sleep(time.Second)
		verify.Equal(t, f.has("a"), "edge-1 "+someID, "the agent")
		calls := f.take("")
		register, deregister := slices.Index(calls, "register a"), slices.Index(calls, "deregister a "+someID)
		verify.That(t, register >= 0 && deregister >= register, "calls %q", calls)
		status := r.Status()
		verify.That(t, status.State == StateRegistered && status.ID == "edge-1", "status %+v", status)
		verify.Slices(t, status.Leftovers, []string{"a"}, "leftovers")
		time.Sleep(10 * time.Minute)
		n := len(f.take("report a passing"))
		verify.That(t, n >= 50, "%d reports in 10 minutes", n)
		f.set("a", func(a *fakeAgent) { a.keeps = nil })
		time.Sleep(12 * time.Second)
		verify.Equal(t, f.has("a"), "edge-1", "the agent")
		verify.Slices(t, r.Status().Leftovers, nil, "leftovers")
	})
}

// someOther is the owner of another replica's registration.
const someOther = "web2/127.0.0.1:8081"

// hold makes an agent have a registration.
func (f *fake) hold(url, id, owner string) {
	f.set(url, func(a *fakeAgent) {
		a.services[id] = &api.AgentServiceRegistration{ID: id, Name: "sluice", Meta: map[string]string{MetaReplica: owner}}
	})
}

// Registrations of other programs and other replicas are kept.
func TestOtherRegistrationsAreKept(t *testing.T) {
	f := func() *fake {
		f := newFake("a", "b")
		f.hold("a", "other-0", someOther)
		f.hold("b", "other-1", someOther)
		return f
	}
	inBubble(t, f, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, stop func()) {
		f.use("b")
		time.Sleep(time.Minute)
		stop()
		r.Leave(t.Context())
		a, b := f.has("a"), f.has("b")
		verify.That(t, a == "other-0" && b == "other-1", "the agents have %q and %q", a, b)
	})
}

// A stop while the agent hangs is bounded, and deregisters what the agent may have
// registered meanwhile.
func TestStopWhileTheAgentHangs(t *testing.T) {
	inBubble(t, oneAgent, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		f.set("a", func(a *fakeAgent) { a.takes = true })
		r.Set(withCheck(CheckNone))
		time.Sleep(time.Second)
		verify.Equal(t, len(f.take("register")), 1, "calls")
		verify.Equal(t, r.Status().State, StatePending, "state")
		begin := time.Now()
		stop()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r.Leave(ctx)
		took := time.Since(begin)
		verify.That(t, took <= finishTimeout+3*time.Second, "it took %v", took)
		verify.Equal(t, len(f.take("deregister")), 1, "calls to deregister")
	})
}

// The agent is processing a registration when sluice stops, and would complete it after
// the deregistration.
func TestStopWhileTheAgentRegisters(t *testing.T) {
	inBubble(t, oneAgent, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		f.set("a", func(a *fakeAgent) { a.slow = 500 * time.Millisecond })
		r.Set(withCheck(CheckNone))
		for len(f.take("register")) == 0 {
			time.Sleep(time.Millisecond)
		}
		stop()
		r.Leave(t.Context())
		time.Sleep(time.Minute)
		verify.Equal(t, f.has("a"), "", "the agent")
	})
}

// An agent that closes the connection may have registered the service: it is asked to
// deregister it when another agent is used, and when sluice stops.
func TestRegistrationWithoutAnswerIsDeregistered(t *testing.T) {
	loses := func(f *fake) { f.set("a", func(a *fakeAgent) { a.loses = true }) }
	inBubble(t, twoAgents, nil, func(t *testing.T, f *fake, r *Registrar, _ func()) {
		loses(f)
		r.Set(withCheck(CheckNone))
		time.Sleep(time.Second)
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		f.use("b")
		time.Sleep(time.Second)
		s := r.Status()
		verify.That(t, s.Agent == "b" && slices.Equal(s.Leftovers, []string{"a"}), "status %+v", s)
		f.set("a", func(a *fakeAgent) { a.err = nil })
		time.Sleep(46 * time.Second) // the longest pause
		verify.Equal(t, f.has("a"), "", "the previous agent")
		verify.Slices(t, r.Status().Leftovers, nil, "leftovers")
	})
	inBubble(t, oneAgent, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		loses(f)
		r.Set(withCheck(CheckNone))
		time.Sleep(500 * time.Millisecond)
		stop()
		r.Leave(t.Context())
		verify.Equal(t, f.has("a"), "", "the agent still")
	})
}

// An agent that is slow to register is left for another one, and found without a registration. It
// still registers afterwards.
func TestRegistrationThatAnAgentTakesLater(t *testing.T) {
	inBubble(t, twoAgents, nil, func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { a.slow = 4 * time.Second })
		r.Set(withCheck(CheckNone))
		for len(f.take("register a")) == 0 {
			time.Sleep(time.Millisecond)
		}
		f.use("b")
		time.Sleep(time.Minute)
		verify.That(t, f.has("a") == "" && f.has("b") == someID, "the agents have %q and %q", f.has("a"), f.has("b"))
		f.take("")
		time.Sleep(time.Hour)
		calls := f.take("look a")
		verify.Equal(t, len(calls), 0, "looks later")
	})
}

func TestMayHaveTaken(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for what, c := range map[string]struct {
		err  error
		want bool
	}{
		"refused connection": {refused, false},
		"later refusal":      {fmt.Errorf("%w: %w", consul.ErrRegistered, refused), true},
		"reset connection":   {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, true},
		"end of connection":  {io.EOF, true},
		"no answer in time":  {context.DeadlineExceeded, true},
	} {
		verify.Equal(t, mayHaveTaken(fmt.Errorf("consul: %w", c.err)), c.want, "%s", what)
	}
}

// A process without a registration deregisters that of the process before, also when that
// one was registering at the moment, and when its admin API had another address.
func TestInheritedRegistrationIsRemoved(t *testing.T) {
	for _, owner := range []string{someSelf.Self().Owner.Value, "web1/127.0.0.1:9081"} {
		f := func() *fake {
			f := newFake("a", "b")
			f.hold("a", someID, owner)
			f.hold("b", "other", someOther)
			return f
		}
		restored := func(r *Registrar) { r.Restore(owner) }
		inBubbleAfter(t, f, restored, nil, func(t *testing.T, f *fake, r *Registrar, _ func()) {
			verify.Equal(t, f.has("a"), "", "the agent")
			verify.Equal(t, f.has("b"), "other", "the other agent")
			f.hold("a", someID, owner)
			time.Sleep(time.Minute)
			verify.Equal(t, f.has("a"), "", "the agent")
			f.take("")
			time.Sleep(time.Hour)
			calls := f.take("")
			verify.That(t, len(calls) <= 2, "calls %q", calls)
			verify.Equal(t, r.Save(), someSelf.Self().Owner.Value, "owner")
		})
	}
}

// A process that stops before it has registered deregisters what the process before has registered:
// nothing answers there any more.
func TestInheritedRegistrationIsRemovedByAStop(t *testing.T) {
	for _, owner := range []string{someSelf.Self().Owner.Value, "web1/127.0.0.1:9081"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake("a", "b")
			f.hold("a", someID, owner)
			f.hold("b", "other", someOther)
			r := New(f.options())
			r.Restore(owner)
			r.Set(withCheck(CheckTTL))
			r.Leave(t.Context()) // it was not ready before
			verify.That(t, f.has("a") == "" && f.has("b") == "other", "the agents have %q and %q", f.has("a"), f.has("b"))
			f.take("")
			r.Leave(t.Context())
			verify.Equal(t, len(f.take("")), 0, "calls of a further stop")
		})
	}
}
