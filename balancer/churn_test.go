package balancer

import (
	"context"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/route/places"
	"sluice/test/long"
	"sluice/test/verify"
)

// strictTransport fails the test if it is used after Close.
type strictTransport struct {
	t      *testing.T
	closed atomic.Bool
}

func (s *strictTransport) Drain()   {}
func (s *strictTransport) Suspect() {}

func (s *strictTransport) Close() {
	verify.That(s.t, !s.closed.Swap(true), "a transport was closed twice")
}

func (s *strictTransport) use() {
	verify.That(s.t, !s.closed.Load(), "a transport was closed under a token")
}

// churn changes a pool at random until stop is closed.
func churn(p *Pool, o Options, set []discovery.Instance, random *rand.Rand, stop <-chan struct{}) {
	set = slices.Clone(set)
	drained := make(map[discovery.Key]bool)
	for {
		select {
		case <-stop:
			return
		default:
		}
		i := &set[random.IntN(len(set))]
		switch random.IntN(9) {
		case 0, 1:
			drained[i.Key()] = !drained[i.Key()]
			orders := maps.Clone(drained)
			p.SetOrders(func(i discovery.Instance) Orders { return Orders{Drain: orders[i.Key()]} })
		case 2:
			var verdicts []Verdict
			for _, peer := range p.Snapshot().All {
				verdicts = append(verdicts, Verdict{Peer: peer, Down: random.IntN(2) == 0})
			}
			p.SetReasons(ReasonActive, verdicts...)
		case 3:
			o.Policy = Policies()[random.IntN(len(pickers))]
			o.Groups = byTag([]string{"a", "b", "c"}[:random.IntN(4)]...)
			o.Subset = Subset{Size: 3 * random.IntN(2), Replicas: 1}
			p.Reconfigure(complete(o))
		case 4:
			i.Status = discovery.Status(random.IntN(4))
		case 5:
			i.Weight = random.IntN(20)
		case 6:
			i.Tags = [][]string{{"a"}, {"b"}, {"a", "c"}, nil}[random.IntN(4)]
		default:
			random.Shuffle(len(set), func(a, b int) { set[a], set[b] = set[b], set[a] })
		}
		p.Apply(slices.Clone(set[:random.IntN(len(set)+1)]))
	}
}

// While the set changes continuously, no request has a closed transport. In the end no request is
// in flight, and each transport is closed once. That a drained peer has no later request is for
// TestNoRequestStartsOnADrainedPeer: here a peer may be in use again before its event is sent.
func TestChurn(t *testing.T) {
	t.Parallel()
	const pickers = 4
	picks := long.Count(t, 40000, 100000)
	var made sync.Map // every transport, by peer
	o := Options{
		DrainTimeout: time.Hour,
		NewTransport: func(peer *Peer) Transport {
			s := &strictTransport{t: t}
			made.Store(peer, s)
			return s
		},
	}
	p := newTestPool(t, o)
	set := instances(12)
	set[0].Tags = []string{"a"}
	p.Apply(set)
	groups := []GroupID{0, p.Group("a").ID(), p.Group("b").ID(), p.Group("c").ID(), p.Group(RestGroup).ID()}

	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	for range 2 {
		random := generator(t)
		writers.Go(func() { churn(p, o, set, random, stop) })
	}
	var picked atomic.Int64
	for range pickers {
		random := generator(t)
		readers.Go(func() {
			var held []Token
			for range picks {
				q := Query{Group: groups[random.IntN(len(groups))], Fallback: groups[random.IntN(len(groups))]}
				token, err := p.Pick(&q)
				if err != nil {
					if len(held) > 0 { // let drains end
						held[0].Done(Outcome{Class: OutcomeReset})
						held = held[1:]
					}
					continue
				}
				picked.Add(1)
				token.Peer.Transport.(*strictTransport).use()
				held = append(held, token)
				if len(held) > random.IntN(8) {
					last := held[len(held)-1]
					held = held[:len(held)-1]
					last.Peer.Transport.(*strictTransport).use()
					last.Done(Outcome{Class: OutcomeOK, Latency: time.Duration(random.IntN(int(time.Second)))})
				}
			}
			for _, token := range held {
				token.Peer.Transport.(*strictTransport).use()
				token.Done(Outcome{})
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
	verify.Equal(t, len(p.Snapshot().Draining), 0, "peers drain, but nothing is in flight")
	// A group has an attempt, whatever the changes were: a group that they remove takes its counter
	// along.
	o.Groups = byTag("a")
	p.Reconfigure(complete(o))
	another := instance(len(set), 1)
	another.Tags = []string{"a"}
	p.Apply([]discovery.Instance{another})
	token, err := p.Pick(in(p, "a"))
	verify.NoError(t, err)
	token.Done(Outcome{Class: OutcomeOK, Latency: time.Millisecond})
	picked.Add(1)
	p.Close()
	verify.That(t, drained(p), "the pool is not drained when nothing is in flight")
	var requests uint64
	made.Range(func(peer, transport any) bool {
		verify.Equal(t, peer.(*Peer).Inflight(), 0, "%v: in flight", peer)
		verify.That(t, transport.(*strictTransport).closed.Load(), "%v: its transport was not closed", peer)
		requests += peer.(*Peer).Requests()
		return true
	})
	verify.Equal(t, int64(requests), picked.Load(), "%d requests", requests)
	var counted uint64
	for name, g := range p.groups.named {
		verify.Equal(t, g.inflight.Load(), 0, "group %s: in flight", name)
		attempts := g.attempts.Snapshot()
		counted += attempts.Total()
	}
	verify.That(t, counted != 0 && counted <= requests, "the groups have %d of %d attempts", counted, requests)
}

// A peer that an operator has drained gets no request after its last one has ended.
func TestNoRequestStartsOnADrainedPeer(t *testing.T) {
	const rounds = 300
	p := newTestPool(t, Options{})
	set := instances(2)
	p.Apply(set)
	target := peerOf(t, p, set[0])
	var down atomic.Bool // the process behind target has ended
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for picks := 0; ; {
				select {
				case <-stop:
					return
				default:
				}
				token, err := p.Pick(nil)
				if err != nil {
					t.Error(err)
					return
				}
				verify.That(t, token.Peer != target || !down.Load(), "a request was started on a peer that had drained")
				token.Done(Outcome{Class: OutcomeOK})
				if picks++; picks%64 == 0 {
					runtime.Gosched() // with one processor
				}
			}
		})
	}
	for range rounds {
		setReason(p, target.ID, ReasonDrain, true, "")
		for target.Inflight() > 0 {
			time.Sleep(time.Microsecond)
		}
		down.Store(true)
		setReason(p, set[1].Key(), ReasonActive, false, "") // a concurrent writer
		down.Store(false)
		setReason(p, target.ID, ReasonDrain, false, "")
	}
	close(stop)
	readers.Wait()
}

// A reader that waits for a first peer does not miss it.
func TestNoChangeIsMissed(t *testing.T) {
	for range 200 {
		p := newTestPool(t, Options{})
		go p.Apply(instances(1))
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		token, err := p.Await(ctx, places.Many, pick(p, nil))
		verify.NoError(t, err)
		token.Done(Outcome{})
		cancel()
		p.Close()
	}
}

// Requests, sets, orders and verdicts go on while a pool is retired and closes: until then it has
// the peers that it had, no request is on a closed transport, and all peers end.
func TestChurnOfRetiredPools(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for round := range uint64(30) {
		var made []*strictTransport
		var peers []*Peer
		o := Options{DrainTimeout: 2 * time.Minute, NewTransport: func(peer *Peer) Transport {
			made, peers = append(made, &strictTransport{t: t}), append(peers, peer)
			return made[len(made)-1]
		}}
		p := newTestPool(t, o, instances(5)...)
		stop := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { churn(p, o, instances(5), rand.New(rand.NewPCG(seed, round)), stop) })
		for range 3 {
			running.Go(func() {
				for {
					if token, err := p.Pick(nil); err == nil {
						token.Peer.Transport.(*strictTransport).use()
						token.Done(Outcome{Class: OutcomeOK, Latency: time.Millisecond})
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		p.Retire(time.Hour)
		usable, _ := p.Snapshot().Usable(0)
		p.Reconfigure(complete(o))
		var err error
		for picks := 20 * usable; picks > 0 && err == nil; picks-- {
			var token Token
			if token, err = p.Pick(nil); err == nil {
				token.Done(Outcome{Class: OutcomeOK, Latency: time.Millisecond})
			}
		}
		p.Close()
		<-p.Drained()
		close(stop)
		running.Wait()
		verify.NoError(t, err)
		for i, peer := range peers {
			verify.That(t, peer.Inflight() == 0 && made[i].closed.Load(), "%v: %d in flight, closed %t", peer, peer.Inflight(), made[i].closed.Load())
		}
	}
}
