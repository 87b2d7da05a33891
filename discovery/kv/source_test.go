package kv

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
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

// keeper is a Consul with one key, whose queries block as Consul's do.
type keeper struct {
	mu sync.Mutex
	// mu guards the fields below.
	index   uint64
	value   string // "": there is no key
	changed chan struct{}
	asked   int // queries of the key
}

func (k *keeper) put(value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.index, k.value, k.asked = k.index+1, value, 0
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *keeper) look() (index uint64, value string, changed <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.index, k.value, k.changed
}

func (k *keeper) queries() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		_, _ = w.Write([]byte(`"10.0.0.1:8300"`)) // the leader
		return
	}
	k.mu.Lock()
	k.asked++
	k.mu.Unlock()
	after, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	index, value, changed := k.look()
	if after == index {
		over := time.NewTimer(wait)
		defer over.Stop()
		select {
		case <-changed:
		case <-over.C:
		case <-r.Context().Done():
			return
		}
		index, value, _ = k.look()
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
	w.Header().Set("X-Consul-KnownLeader", "true")
	if value == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = fmt.Fprintf(w, `[{"Key":"star","Value":%q}]`, base64.StdEncoding.EncodeToString([]byte(value)))
}

// While a value cannot be used, instances on probation stay, and Consul is not asked because their time is over.
func TestProbationWhileAValueCannotBeUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{index: 10, value: "10.0.0.1:80", changed: make(chan struct{})}
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
			source := NewSources(client, zerolog.Nop()).Source("star", Options{Key: "star", Wait: time.Minute, Probation: 5 * time.Minute})
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
		k.put("")
		time.Sleep(time.Minute)
		k.put("nonsense")
		time.Sleep(10 * time.Minute)
		now := inUse()
		verify.That(t, len(now) == 1 && !now[0].Probation.IsZero(), "the set is %+v", now)
		verify.That(t, k.queries() < 20, "%d queries in 10 min", k.queries())
		k.put("[]")
		time.Sleep(time.Second)
		verify.That(t, len(inUse()) == 0, "after the time on probation the set is %+v", inUse())
	})
}
