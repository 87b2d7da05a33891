package places

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

func block(t testing.TB, address string) Block {
	t.Helper()
	a := verify.Result(netip.ParseAddr(address)).Must(t)
	return BlockOf(a)
}

func atMost(d time.Duration) func() (context.Context, context.CancelFunc) {
	return func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), d)
	}
}

func TestBlocks(t *testing.T) {
	same := func(a, b string) bool { return block(t, a) == block(t, b) }
	verify.That(t, same("1.2.3.4", "1.2.3.4") && !same("1.2.3.4", "1.2.3.5"), "an IPv4 address is a block")
	verify.That(t, same("2001:db8::1", "2001:db8::ffff:0:1") && !same("2001:db8::1", "2001:db8:0:1::1") && same("fe80::1%eth0", "fe80::2"), "the /64 of an IPv6 address is a block")
	verify.That(t, block(t, "0.0.0.0") != Many && block(t, "::") != Many, "no address is many clients")
}

// However many wait for one block, others get the next place but one, and the waits end.
func TestBlocksTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(2, 2)
		greedy, other := block(t, "10.0.0.1"), block(t, "10.0.0.2")
		var mu sync.Mutex
		var order []Block
		take := func(b Block) {
			if p.Take(b, atMost(time.Minute)) == nil {
				mu.Lock()
				order = append(order, b)
				mu.Unlock()
			}
		}
		for range 2 {
			take(greedy)
		}
		for range 50 {
			go take(greedy)
		}
		synctest.Wait()
		go take(other)
		synctest.Wait()
		p.Give(greedy)
		p.Give(greedy)
		synctest.Wait()
		verify.That(t, len(order) == 4 && order[2] != order[3], "the places, of which two are the next: %v", order)
		time.Sleep(2 * time.Minute)
		verify.That(t, p.Waiting() == 0 && p.Taken() == 2, "%d wait, %d places taken", p.Waiting(), p.Taken())
		for b := range map[Block]bool{greedy: true, other: true} {
			p.Give(b)
		}
		verify.Equal(t, len(p.clients), 0, "clients at the end")
		verify.Equal(t, p.Taken(), 0, "places taken at the end")
	})
}

func TestShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(8, 2)
		a, b := block(t, "10.0.0.1"), block(t, "10.0.0.2")
		for _, step := range []struct {
			block Block
			want  error
		}{
			{a, nil}, {a, nil}, {a, context.DeadlineExceeded}, {b, nil}, {b, nil}, {b, context.DeadlineExceeded},
			{Many, nil}, {Many, nil}, {Many, nil}, {Many, nil}, {Many, context.DeadlineExceeded},
		} {
			err := p.Take(step.block, atMost(time.Second))
			verify.That(t, errors.Is(err, step.want), "%v: got %v, want %v", step.block, err, step.want)
		}
	})
}

// In any order of calls: no share is exceeded, no free place is left while one waits that may
// have it, and at the end nothing is left.
func TestPlacesAtRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 0))
		p := New(1+random.IntN(5), 1+random.IntN(3))
		blocks := []Block{Many, block(t, "10.0.0.1"), block(t, "10.0.0.2"), block(t, "2001:db8::1")}
		var running sync.WaitGroup
		for range 300 {
			b := blocks[random.IntN(len(blocks))]
			patience, hold := time.Duration(random.IntN(100)), time.Duration(random.IntN(50))
			running.Go(func() {
				if p.Take(b, atMost(patience*time.Millisecond)) == nil {
					time.Sleep(hold * time.Millisecond)
					p.Give(b)
				}
			})
			time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
			synctest.Wait()
			p.mu.Lock()
			taken, waiting := 0, 0
			for _, c := range p.clients {
				taken += c.taken
				waiting += len(c.waiting)
				verify.That(t, c.taken <= c.share && (p.taken >= p.all || c.taken >= c.share || len(c.waiting) == 0), "%v: %d of %d places, %d wait; %d of %d are taken", c.block, c.taken, c.share, len(c.waiting), p.taken, p.all)
			}
			verify.That(t, taken == p.taken && taken <= p.all && waiting == p.waiting, "%d places taken, %d wait; counted %d, %d", p.taken, p.waiting, taken, waiting)
			p.mu.Unlock()
		}
		running.Wait()
		verify.That(t, p.taken == 0 && p.waiting == 0 && len(p.clients) == 0 && len(p.next) == 0, "left: %d places, %d wait, %d clients, %d in turn", p.taken, p.waiting, len(p.clients), len(p.next))
	})
}

// A place that is free costs no memory.
func TestTakeAllocatesNothing(t *testing.T) {
	p, b := New(2, 1), block(t, "10.0.0.1")
	if n := testing.AllocsPerRun(100, func() {
		if p.Take(b, nil) == nil {
			p.Give(b)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
