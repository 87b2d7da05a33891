package healthcheck

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cespare/xxhash/v2"

	"sluice/balancer"
	"sluice/test/verify"
)

// parties are clients of one service, and how its peers answer them.
type parties struct {
	peers  int
	policy balancer.Policy
	sticky bool // each request of A goes to the same peer
	a, b   int  // requests a second of A, which every peer fails alike, and of the others
	fails  balancer.Outcome
	tries  int  // of a request of A
	broken int  // peers that fail everything
	apart  bool // each request of B is like no other one
}

// Numbers of endpoints.
const (
	poison = iota + 1
	usual
	unique
)

// play lets requests come for a while, and returns how many each peer has failed of B's before its
// first ejection, and the most peers that were ejected at a time.
func (p parties) play(t *testing.T, random *rand.Rand) (before []int, lost int) {
	bubble(t, passiveSettings(), p.peers, func(t *testing.T, f *fixture) {
		if p.policy != "" {
			f.options.Policy = p.policy
			f.reconfigure(passiveSettings())
		}
		before, lost = p.requests(f, random)
	})
	return before, lost
}

func (p parties) requests(f *fixture, random *rand.Rand) (before []int, lost int) {
	before = make([]int, p.peers)
	ejected := make([]bool, p.peers)
	number := make(map[*balancer.Peer]int)
	for n := range p.peers {
		number[f.peer(n)] = n
	}
	end := time.Now().Add(30 * time.Second)
	for next := uint32(unique); time.Now().Before(end); {
		time.Sleep(time.Duration(random.ExpFloat64() * float64(time.Second) / float64(p.a+p.b)))
		o, tries, query := fine, 1, balancer.Query{}
		mine := random.IntN(p.a+p.b) < p.a
		if o.Endpoint = usual; p.apart {
			o.Endpoint, next = next, next+1
		}
		if mine {
			o = p.fails
			o.Endpoint, tries = poison, cmp.Or(p.tries, 1)
		}
		for range tries {
			token, err := f.Pick(&query)
			if err != nil {
				break
			}
			for range 1000 {
				if !mine || !p.sticky || number[token.Peer] == 0 {
					break
				}
				token.Done(balancer.Outcome{Class: balancer.OutcomeLocal})
				token, _ = f.Pick(&query)
			}
			result, n := o, number[token.Peer]
			if n < p.broken {
				result.Class, result.Status = p.fails.Class, p.fails.Status
				if !mine && !ejected[n] {
					before[n]++
				}
			}
			token.Done(result)
			synctest.Wait()
			ejected[n] = ejected[n] || token.Peer.State() == balancer.StateEjected
			query.Tried.Add(token.Peer)
		}
		lost = max(lost, p.peers-f.eligible())
	}
	return before, lost
}

// A asks at any rate for what every peer fails, and B keeps all peers.
func TestWhatEveryPeerFailsEjectsNone(t *testing.T) {
	seed := xxhash.Sum64String(t.Name())
	t.Logf("seed %d", seed)
	for _, o := range []balancer.Outcome{reset, gateway, timeout} {
		for _, rates := range [][2]int{{2, 2}, {4, 8}, {200, 200}, {500, 10}, {1, 200}, {50, 1}} {
			for n, p := range []parties{
				{peers: 2}, {peers: 4}, {peers: 4, tries: 3}, {peers: 10, policy: balancer.PolicyEWMA}, {peers: 4, sticky: true},
				{peers: 4, apart: true}, {peers: 4, policy: balancer.PolicyLeastConn},
			} {
				p.a, p.b, p.fails = rates[0], rates[1], o
				t.Run(fmt.Sprint(o.Class, rates, n), func(t *testing.T) {
					_, lost := p.play(t, rand.New(rand.NewPCG(seed, uint64(n))))
					verify.Equal(t, lost, 0, "peers ejected at a time")
				})
			}
		}
	}
}

// Peers that do fail are ejected after as many failures as before: one of two, one of many, half of
// all at once, with requests of which each is like no other one, and while A asks for what every
// peer fails.
func TestPeersThatDoWorseAreEjectedAsQuickly(t *testing.T) {
	seed := xxhash.Sum64String(t.Name())
	t.Logf("seed %d", seed)
	for _, o := range []balancer.Outcome{refused, reset, gateway, timeout} {
		for n, p := range []parties{
			{peers: 2, broken: 1}, {peers: 4, broken: 1}, {peers: 4, broken: 2}, {peers: 10, broken: 1},
			{peers: 4, broken: 1, apart: true}, {peers: 4, broken: 1, a: 1}, {peers: 4, broken: 1, a: 20},
		} {
			p.b, p.fails = 10, o
			t.Run(fmt.Sprint(o.Class, n), func(t *testing.T) {
				before, _ := p.play(t, rand.New(rand.NewPCG(seed, uint64(n))))
				for n := range p.broken {
					verify.That(t, before[n] > 0 && before[n] <= 6,
						"peer %d failed %d requests of B before its ejection", n, before[n])
				}
				t.Log(before)
			})
		}
	}
}

// A peer that hangs has few requests, which fail together: they count when another peer has
// answered one like them.
func TestFailuresCountWhenAnotherPeerAnswers(t *testing.T) {
	bubble(t, passiveSettings(), 3, func(t *testing.T, f *fixture) {
		late := timeout
		late.Endpoint = usual
		f.fail(0, 5, late)
		verify.Equal(t, f.eligible(), 3, "before another peer was asked")
		well := fine
		well.Endpoint = usual
		f.request(1, well)
		synctest.Wait()
		verify.Slices(t, f.peer(0).Reasons(), []string{"ejected: 5 failures in a row, the last: timeout; for 10s until 2000-01-01T00:00:10Z"}, "reasons")
		// The failures of before say nothing about the next one.
		pass(time.Minute)
		f.request(0, well)
		f.fail(0, 4, late)
		f.request(1, well)
		verify.Equal(t, f.eligible(), 3, "after four more failures")
	})
}

// What sluice knows of like requests is of the time since the first failure.
func TestFormerResultsDoNotCount(t *testing.T) {
	bubble(t, passiveSettings(), 2, func(t *testing.T, f *fixture) {
		bad, well := reset, fine
		bad.Endpoint, well.Endpoint = usual, usual
		f.fail(0, 4, bad)
		f.request(1, well)
		pass(time.Minute)
		f.request(1, well) // ends the look
		f.request(0, well)
		f.fail(0, 1, bad)
		f.request(1, well)
		synctest.Wait()
		verify.Equal(t, f.eligible(), 2, "one failure after a minute")
		verify.Equal(t, f.peer(0).Streak().Gateway, 1, "failures in a row")
	})
}
