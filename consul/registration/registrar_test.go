package registration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/parallel"
	"sluice/test/verify"
)

// inBubble runs test with a registrar of f in virtual time.
func inBubble(t *testing.T, f func() *fake, s *Settings, test func(t *testing.T, f *fake, r *Registrar, stop func())) {
	t.Helper()
	inBubbleAfter(t, f, func(*Registrar) {}, s, test)
}

// inBubbleAfter is inBubble with a change of the registrar before it runs.
func inBubbleAfter(t *testing.T, f func() *fake, change func(*Registrar), s *Settings, test func(t *testing.T, f *fake, r *Registrar, stop func())) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := f()
		r := New(f.options())
		change(r)
		r.Set(s)
		stop := parallel.Run(t, r.Run)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		test(t, f, r, stop)
	})
}

const someID = "sluice-web1-8080"

func oneAgent() *fake  { return newFake("a") }
func twoAgents() *fake { return newFake("a", "b") }

func TestNoRequestsWithoutSettings(t *testing.T) {
	inBubble(t, twoAgents, nil, func(t *testing.T, f *fake, r *Registrar, stop func()) {
		time.Sleep(24 * time.Hour)
		verify.Equal(t, r.Status().State, StateOff, "state")
		stop()
		r.Leave(t.Context())
		verify.Slices(t, f.take(""), nil, "calls")
	})
}

func TestSteadyStateCostsOneRequestInTenSeconds(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		verify.Slices(t, f.take(""), []string{"look a", "list a", "register a", "look b"}, "at the start")
		time.Sleep(10 * time.Minute)
		calls := f.take("")
		n := len(calls)
		verify.That(t, n >= 54 && n <= 67 && !slices.ContainsFunc(calls, func(c string) bool { return c != "look a" }), "in 10 minutes %d calls: %q", n, calls)
	})
}

func TestCheckInterval(t *testing.T) {
	everyMinute := func(r *Registrar) { r.CheckInterval = time.Minute }
	inBubbleAfter(t, oneAgent, everyMinute, withCheck(CheckNone), func(t *testing.T, f *fake, _ *Registrar, _ func()) {
		time.Sleep(time.Hour)
		n := len(f.take("look"))
		verify.That(t, n >= 54 && n <= 68, "in an hour it looked %d times", n)
	})
}

func TestLostRegistrationIsRepeated(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { clear(a.services) })
		time.Sleep(11 * time.Second)
		verify.Equal(t, f.has("a"), someID, "the agent")
	})
}

func TestChangedRegistrationIsRepaired(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) {
			other := *a.services[someID]
			other.Port = 1
			a.services[someID] = &other
		})
		time.Sleep(11 * time.Second)
		f.set("a", func(a *fakeAgent) {
			verify.Equal(t, a.services[someID].Port, 8080, "it is still different")
		})
	})
}

func TestBackoff(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		f.take("")
		time.Sleep(20 * time.Minute)
		// 30 s apart ± 50 % after the first few.
		n := len(f.take(""))
		verify.That(t, n >= 27 && n <= 90, "%d attempts in 20 minutes", n)
		s := r.Status()
		verify.That(t, s.State == StateFailing && s.LastError == "connection refused" && s.Errors >= 27, "status %+v", s)
		f.set("a", func(a *fakeAgent) { a.err = nil })
		f.use("a") // as the client tells when the agent answers again
		time.Sleep(time.Second)
		s = r.Status()
		verify.That(t, s.State == StateRegistered && s.LastError == "", "after a second: %+v", s)
	})
}

func TestTTLReportsContinue(t *testing.T) {
	inBubble(t, twoAgents, withCheck(CheckTTL), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.take("")
		// A hanging agent that may have the service does not delay reports to the one in
		// use.
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
			reports++
			verify.That(t, last.IsZero() || c.at.Sub(last) <= 12*time.Second, "report interval %v", c.at.Sub(last))
			last = c.at
		}
		f.mu.Unlock()
		verify.That(t, reports >= 50 && reports <= 90, "%d reports in 10 minutes", reports)
		f.set("b", func(a *fakeAgent) { clear(a.services) })
		time.Sleep(11 * time.Second)
		verify.Equal(t, f.has("b"), someID, "after the loss, the agent")
	})
}

// While reports are refused the check becomes critical, although the agent has the registration.
func TestRefusedReportIsAFailureUntilOneSucceeds(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckTTL), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.set("a", func(a *fakeAgent) { a.ignores = errors.New("permission denied") })
		time.Sleep(15 * time.Second)
		for n := range 60 {
			time.Sleep(time.Second)
			synctest.Wait()
			verify.Require(t, r.Status().State == StateFailing, "after %d s: %+v", 16+n, r.Status())
		}
		f.set("a", func(a *fakeAgent) { a.ignores = nil })
		time.Sleep(2 * longestRetry)
		synctest.Wait()
		verify.Equal(t, r.Status().State, StateRegistered, "after a report that succeeds")
	})
}

func TestTTLReportsWhatIsMissing(t *testing.T) {
	stopping := func(r *Registrar) {
		r.Ready = func(context.Context) (bool, []string) { return false, []string{"sluice is stopping"} }
	}
	inBubbleAfter(t, oneAgent, stopping, withCheck(CheckTTL), func(t *testing.T, f *fake, _ *Registrar, _ func()) {
		calls := f.take("report")
		verify.That(t, len(calls) != 0 && calls[0] == "report a critical sluice is stopping", "got %q", calls)
	})
}

// The last outbound address is used while it cannot be determined. Without one sluice does
// not register, since Consul would use the agent's address.
func TestAddressForAnAgentElsewhere(t *testing.T) {
	elsewhere := func() *fake { return newFake("http://consul.example.com:8500") }
	settings := withCheck(CheckNone)
	settings.Listener = "[::]:8080"
	var known atomic.Bool
	outbound := func(r *Registrar) {
		r.Outbound = func(string) string {
			if known.Load() {
				return "10.0.0.7"
			}
			return ""
		}
	}
	inBubbleAfter(t, elsewhere, outbound, settings, func(t *testing.T, f *fake, r *Registrar, _ func()) {
		time.Sleep(time.Minute)
		s := r.Status()
		verify.That(t, s.State == StateFailing && f.has(f.inUse) == "", "status %+v", s)
		verify.Contains(t, s.LastError, "set consul.register.address", "the error")
		known.Store(true)
		time.Sleep(time.Minute)
		known.Store(false)
		time.Sleep(time.Minute)
		verify.Equal(t, r.Status().Registrations, 1, "registrations")
		f.set(f.inUse, func(a *fakeAgent) {
			s := a.services[someID]
			verify.That(t, s != nil && s.Address == "10.0.0.7", "got %+v", s)
		})
	})
}

func TestChangesAreCoalesced(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		f.take("")
		for n := range 1000 {
			s := withCheck(CheckNone)
			s.Meta = map[string]string{MetaConfig: fmt.Sprint(n)}
			r.Set(s)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		n := len(f.take("register"))
		verify.That(t, n <= 4, "%d registrations", n)
		f.set("a", func(a *fakeAgent) {
			verify.Equal(t, a.services[someID].Meta[MetaConfig], "999", "the last registration")
		})
	})
}

// A service that does not work is not registered as passing.
func TestLostServiceThatDoesNotWorkIsCritical(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckHTTP), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		status := func() (s string) {
			f.set("a", func(a *fakeAgent) {
				if registered := a.services[someID]; registered != nil {
					s = registered.Check.Status
				}
			})
			return s
		}
		verify.Equal(t, status(), "passing", "at the start")
		f.set("a", func(a *fakeAgent) {
			f.sick = true
			clear(a.services)
		})
		time.Sleep(11 * time.Second)
		verify.Equal(t, status(), "critical", "after the loss")
	})
}

func TestLeaveCanBeRepeated(t *testing.T) {
	inBubble(t, oneAgent, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, stop func()) {
		stop()
		f.set("a", func(a *fakeAgent) { a.err = errors.New("connection refused") })
		r.Leave(t.Context())
		verify.That(t, r.Listed(), "it is no longer listed")
		f.set("a", func(a *fakeAgent) { a.err = nil })
		r.Leave(t.Context())
		verify.That(t, !r.Listed() && f.has("a") == "", "the agent has %q", f.has("a"))
	})
}
