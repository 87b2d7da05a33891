package places

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/test/verify"
)

// other returns a block with another counter.
func other(t *testing.T, s *Shares, b Block) Block {
	t.Helper()
	for i := range 256 {
		if c := block(t, fmt.Sprint("10.1.0.", i)); s.of(c) != s.of(b) {
			return c
		}
	}
	t.Fatal("all blocks have one counter")
	return Block{}
}

func TestShares(t *testing.T) {
	s := NewShares()
	a := block(t, "10.0.0.1")
	b := other(t, s, a)
	for i, step := range []struct {
		block Block
		n     int64
		want  bool
	}{
		{a, 10, true}, {a, 1, false}, {a, -10, true}, {a, 11, false}, {a, 6, true}, {a, 5, false}, {a, 4, true},
		{b, 10, true}, {b, 1, false}, {Many, 60, true}, {Many, 1, false}, {b, -10, true}, {Many, 10, true}, {b, 1, false},
	} {
		if step.n < 0 {
			s.Give(step.block, -step.n)
		} else if got := s.Take(step.block, step.n, 80); got != step.want {
			t.Errorf("step %d: got %v", i, got)
		}
	}
	s.Give(a, 10)
	s.Give(Many, 70)
	left := [...]int64{s.Taken(), s.TakenBy(a), s.TakenBy(b)}
	verify.Equal(t, left, [...]int64{0, 0, 0}, "what is left")
}

// In any order of calls nobody has more than it may, and what is refused leaves nothing behind.
func TestSharesAtRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := NewShares()
	const all = 800
	blocks := []Block{Many, block(t, "2001:db8::1")}
	for i := range 20 {
		blocks = append(blocks, block(t, fmt.Sprint("10.0.0.", i)))
	}
	type taken struct {
		block Block
		n     int64
	}
	var have []taken
	for range 5000 {
		if i := random.IntN(len(have) + 1); i < len(have) && random.IntN(2) == 0 {
			s.Give(have[i].block, have[i].n)
			have[i] = have[len(have)-1]
			have = have[:len(have)-1]
		} else if b, n := blocks[random.IntN(len(blocks))], 1+random.Int64N(60); s.Take(b, n, all) {
			have = append(have, taken{b, n})
		}
		total := int64(0)
		for _, h := range have {
			total += h.n
			of := s.TakenBy(h.block)
			verify.Require(t, h.block == Many || of <= all/clientsPerAll, "%v has %d", h.block, of)
		}
		verify.Require(t, total <= all && s.Taken() == total, "%d of %d are taken, %d are counted", total, all, s.Taken())
	}
	for _, h := range have {
		s.Give(h.block, h.n)
	}
	for i := range s.blocks {
		verify.Equal(t, s.blocks[i].Load(), 0, "counter %d is at the end", i)
	}
	verify.Equal(t, s.Taken(), 0, "are taken at the end")
}

func TestSharesAllocateNothing(t *testing.T) {
	s, b := NewShares(), block(t, "2001:db8::1")
	if n := testing.AllocsPerRun(100, func() {
		if s.Take(b, 1, 100) {
			s.Give(b, 1)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
