package ratelimit

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(10, time.Second, 3) // one each 100 ms
		a, b := []byte("a"), []byte("b")
		for _, step := range []struct {
			sleep time.Duration
			key   []byte
			want  time.Duration
		}{
			{0, a, 0}, {0, a, 0}, {0, a, 0}, {0, a, 100 * time.Millisecond}, {0, b, 0},
			{30 * time.Millisecond, a, 70 * time.Millisecond}, {70 * time.Millisecond, a, 0}, {0, a, 100 * time.Millisecond},
			{250 * time.Millisecond, a, 0}, {0, a, 0}, {0, a, 50 * time.Millisecond},
			{time.Hour, a, 0}, {0, a, 0}, {0, a, 0}, {0, a, 100 * time.Millisecond},
		} {
			time.Sleep(step.sleep)
			got := l.Take(step.key, time.Now())
			verify.Require(t, got == step.want, "%+v: got %v", step, got)
		}
	})
}

// Over any time, a key gets what the rate allows and its burst: as a naive bucket says.
func TestTakeAgainstBucket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		rate, burst := 1+random.IntN(20), 1+random.IntN(5)
		interval := time.Second / time.Duration(rate)
		l := New(rate, time.Second, burst)
		now := l.epoch
		tokens := float64(burst)
		for range 1000 {
			step := time.Duration(random.Int64N(int64(2 * interval)))
			now = now.Add(step)
			tokens = min(float64(burst), tokens+float64(step)/float64(interval))
			if tokens > 0.999999 && tokens < 1.000001 {
				continue // either is right
			}
			want := tokens >= 1
			if want {
				tokens--
			}
			got := l.Take([]byte("a"), now) == 0
			verify.Require(t, got == want, "rate %d, burst %d: got %v with %v tokens", rate, burst, got, tokens)
		}
	}
}

// Many keys take bounded memory, and do not free a limited key.
func TestManyKeys(t *testing.T) {
	l := New(1, time.Minute, 10)
	now := l.epoch
	victim := []byte("victim")
	for l.Take(victim, now) == 0 {
	}
	key := make([]byte, 8)
	for i := range 4 * maxKeys {
		binary.LittleEndian.PutUint64(key, uint64(i))
		l.Take(key, now)
		verify.Require(t, i%1000 != 0 || l.Take(victim, now) != 0, "the limited key got a token after %d others", i)
	}
	n := l.len()
	verify.That(t, n <= maxKeys, "%d buckets, want at most %d", n, maxKeys)
	// All are full after an hour. New keys remove them.
	now = now.Add(time.Hour)
	for i := range maxKeys {
		binary.LittleEndian.PutUint64(key, uint64(i))
		l.Take(key, now.Add(time.Duration(i)*time.Minute))
	}
	n = l.len()
	verify.That(t, n <= maxKeys/10, "%d buckets, most of them full", n)
}

func (l *Limiter) len() (n int) {
	for i := range l.shards {
		n += len(l.shards[i].buckets)
	}
	return n
}

func TestTakeDoesNotAllocate(t *testing.T) {
	key, now := []byte("a"), time.Now()
	for name, l := range map[string]*Limiter{
		"own": New(1, time.Second, 1), "shared": NewShared(1, time.Second, 1, NewFleet(testSeed)),
	} {
		allocations := testing.AllocsPerRun(100, func() { l.Take(key, now) })
		verify.Equal(t, allocations, 0, "allocations, %s", name)
	}
}
