package registration

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/verify"
)

// balancer is the URL of a load balancer of agents.
const balancer = "http://balancer:8500"

// behindABalancer returns a fake of n agents behind a balancer that chooses with next.
func behindABalancer(n int, next func(int) int) *fake {
	f := newFake(balancer)
	f.next = next
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		f.behind = append(f.behind, name)
		f.agents[name] = &fakeAgent{services: make(map[string]*api.AgentServiceRegistration)}
	}
	return f
}

// holders returns how many agents have a service, and how many of them with tag.
func (f *fake) holders(tag string) (all, tagged int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.agents {
		for _, s := range a.services {
			all++
			if len(s.Tags) > 0 && s.Tags[0] == tag {
				tagged++
			}
		}
	}
	return all, tagged
}

// Behind a load balancer of agents, exactly one of them has the registration in the end,
// however the balancer chooses: at the start, after a crash, after changes, after losses. It
// is never missing meanwhile. After the stop no agent has it.
func TestSeveralAgentsAtOneAddress(t *testing.T) {
	for _, way := range []string{"in turn", "random"} {
		for _, n := range []int{2, 3, 5} {
			for _, check := range []CheckType{CheckNone, CheckTTL} {
				for seed := range uint64(10) {
					t.Run(fmt.Sprintf("%s, %d agents, %s, seed %d", way, n, check, seed), func(t *testing.T) {
						testSeveralAgents(t, way, n, check, seed)
					})
				}
			}
		}
	}
}

func testSeveralAgents(t *testing.T, way string, n int, check CheckType, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	turn := int(seed)
	next := random.IntN
	if way == "in turn" {
		next = func(n int) int { turn++; return turn % n }
	}
	settings := func(tag string) *Settings {
		s := withCheck(check)
		s.Tags = []string{tag}
		return s
	}
	start := func() *fake {
		f := behindABalancer(n, next)
		if seed%2 == 1 { // an earlier process has crashed
			name := f.behind[0]
			self := someSelf.Self()
			f.agents[name].services[someID] = define(*settings("old"), self, balancer, Outbound).AgentServiceRegistration
		}
		return f
	}
	inBubble(t, start, settings("v0"), func(t *testing.T, f *fake, r *Registrar, stop func()) {
		settle := func(tag string) {
			t.Helper()
			for range 240 {
				time.Sleep(500 * time.Millisecond)
				all, _ := f.holders(tag)
				verify.Require(t, all > 0, "the registration is missing")
			}
			all, tagged := f.holders(tag)
			verify.Require(t, all == 1 && tagged == 1, "%d agents have it, %d with the tag %s", all, tagged, tag)
		}
		settle("v0")
		for _, tag := range []string{"v1", "v2"} {
			r.Set(settings(tag))
			settle(tag)
		}
		r.Set(settings("v2")) // nothing changes, and it is registered again
		settle("v2")
		f.mu.Lock()
		for _, a := range f.agents {
			clear(a.services)
		}
		f.mu.Unlock()
		time.Sleep(15 * time.Second)
		settle("v2")
		for range 60 { // a report may have reached no agent that has it, and is repeated
			if r.Status().State == StateRegistered {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		verify.Equal(t, r.Status().State, StateRegistered, "state")
		stop()
		r.Leave(t.Context())
		all, _ := f.holders("")
		verify.That(t, all == 0 && !r.Listed(), "after the stop %d agents have it", all)
	})
}

// A registration at a dead agent does not count.
func TestDeadAgentBehindABalancer(t *testing.T) {
	turn := 0
	alive := func(n int) int { turn++; return turn % n }
	start := func() *fake { return behindABalancer(3, alive) }
	inBubble(t, start, withCheck(CheckNone), func(t *testing.T, f *fake, r *Registrar, _ func()) {
		time.Sleep(time.Minute)
		f.mu.Lock()
		for i, name := range f.behind {
			if a := f.agents[name]; len(a.services) > 0 {
				a.dead = true
				f.behind = append(f.behind[:i:i], f.behind[i+1:]...)
				break
			}
		}
		f.mu.Unlock()
		time.Sleep(time.Minute)
		alive := 0
		f.mu.Lock()
		for _, name := range f.behind {
			alive += len(f.agents[name].services)
		}
		f.mu.Unlock()
		verify.Equal(t, alive, 1, "living agents have it")
	})
}
