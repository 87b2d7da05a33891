package kv

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// While a value cannot be used, instances on probation stay, and Consul is not asked because their
// time is over.
func TestProbationWhileAValueCannotBeUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newOneKey()
		k.set(new("10.0.0.1:80"), nil)
		pipe := discoverytest.ServePipe(k)
		defer pipe.Close()
		client, err := consul.New(consul.Options{Addresses: []string{"http://agent"}, Dial: pipe.DialContext})
		verify.NoError(t, err)
		defer client.Close()
		var mu sync.Mutex
		var set []discovery.Instance
		report := func(r discovery.Report) {
			mu.Lock()
			defer mu.Unlock()
			if r.Known {
				set = r.Set
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			source := NewSource("star", Options{Key: "star", Wait: time.Minute, Probation: 5 * time.Minute}, client, zerolog.Nop())
			_ = source.Run(ctx, discovery.WatchState{}, report)
		})
		defer running.Wait()
		defer cancel()

		inUse := func() []discovery.Instance {
			mu.Lock()
			defer mu.Unlock()
			return set
		}
		time.Sleep(time.Minute)
		k.set(nil, nil)
		time.Sleep(time.Minute)
		k.set(new("nonsense"), nil)
		time.Sleep(10 * time.Minute)
		now := inUse()
		verify.That(t, len(now) == 1 && !now[0].Probation.IsZero(), "the set is %+v", now)
		verify.That(t, k.queries() < 20, "%d queries in 10 min", k.queries())
		k.set(new("[]"), nil)
		time.Sleep(time.Second)
		verify.That(t, len(inUse()) == 0, "after the time on probation the set is %+v", inUse())
	})
}

// A source that begins while the value cannot be used logs how many instances of before are in use.
func TestInstancesOfBeforeAreInUseWhileAValueCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newOneKey()
		k.set(new("nonsense"), nil)
		pipe := discoverytest.ServePipe(k)
		defer pipe.Close()
		client := verify.Result(consul.New(consul.Options{Addresses: []string{"http://agent"}, Dial: pipe.DialContext})).Must(t)
		defer client.Close()
		var log strings.Builder
		before := discovery.WatchState{Known: true, Set: verify.Result(discovery.ParseValues("star", []byte("10.0.0.1:80\n10.0.0.2:80"))).Must(t)}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			source := NewSource("star", Options{Key: "star", Wait: time.Minute}, client, zerolog.New(&log))
			_ = source.Run(ctx, before, func(r discovery.Report) { verify.That(t, !r.Known, "a set is reported: %+v", r) })
		})
		time.Sleep(time.Minute)
		cancel()
		running.Wait()
		verify.That(t, strings.Count(log.String(), `"instances_in_use":2`) == 1, "the log has %s", log.String())
	})
}
