package consul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/test/discoverytest"
	"sluice/test/long"
	"sluice/test/verify"
)

// outage is a Consul that is not there, or not right, for a time.
type outage struct {
	*rand.Rand
	consul  *discoverytest.Consul
	refused atomic.Bool // new connections
	index   uint64      // after a loss
	steps   []string
}

// refusing dials through a network in which nobody listens during some outages.
func (o *outage) refusing(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if o.refused.Load() {
			return nil, errors.New("connection refused")
		}
		return dial(ctx, network, address)
	}
}

// begin begins an outage, of all queries or of some.
func (o *outage) begin() {
	f := discoverytest.Fault{}
	kind := o.IntN(7)
	switch kind {
	case 0, 1:
		f.Drop = true
		o.refused.Store(kind == 0)
	case 2:
		f.Pause = true
	case 3:
		f.Status, f.Body = http.StatusInternalServerError, "rpc error: No cluster leader"
		o.consul.BreakProbes(http.StatusInternalServerError)
	case 4:
		f.Status, f.Body = http.StatusTooManyRequests, "Your IP is issuing too many concurrent connections"
	case 5:
		f.NoLeader = true
	case 6: // each query fails or not
		seed := o.Uint64()
		var n atomic.Uint64
		f.Drop = true
		f.Only = func(discoverytest.Request) bool { return (seed+n.Add(1))*0x9e3779b97f4a7c15>>63 == 0 }
	}
	o.consul.Break(f)
	o.steps = append(o.steps, fmt.Sprintf("outage of kind %d", kind))
}

// end ends it. Consul may have lost its indexes: servers that begin anew refuse connections before.
func (o *outage) end() {
	if o.IntN(3) == 0 {
		o.consul.Break(discoverytest.Fault{Drop: true})
		time.Sleep(2 * time.Second)
		o.index -= o.index / 4
		o.consul.SetIndex(o.index)
		o.steps = append(o.steps, "the index goes backwards")
	}
	o.refused.Store(false)
	o.consul.Heal()
}

// run makes outages. register adds an instance to Consul; used reports whether it gets requests.
func (o *outage) run(t *testing.T, register func(id string), used func(id string) bool) {
	for n := range 20 {
		id := string(rune('c' + n))
		pause := func(most time.Duration) { time.Sleep(time.Duration(o.Int64N(int64(most)))) }
		moment := o.IntN(3) // in which the instance is registered
		pause(20 * time.Second)
		o.begin()
		pause(12 * time.Second)
		if moment == 0 {
			register(id)
			pause(6 * time.Second)
		}
		o.end()
		switch moment {
		case 1:
			register(id)
		case 2:
			pause(5 * time.Second)
			register(id)
		}
		o.steps = append(o.steps, fmt.Sprintf("%s is registered at moment %d", id, moment))
		// A 429 ends the attempts for up to 15 s, a hanging agent is left after 5 s.
		for waited := time.Duration(0); ; waited += 100 * time.Millisecond {
			synctest.Wait()
			if used(id) {
				break
			}
			verify.Require(t, waited <= 20*time.Second, "%s gets no requests 20 s after the outage and its registration\nsteps:\n%s",
				id, strings.Join(o.steps, "\n"))
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// outageInBubble watches services, of which the first gets further instances.
func outageInBubble(t *testing.T, services int, random *rand.Rand) {
	synctest.Test(t, func(t *testing.T) {
		fake := discoverytest.New()
		o := &outage{Rand: random, consul: fake, index: 1 << 60}
		pipe := discoverytest.ServePipe(fake)
		t.Cleanup(pipe.Close)
		client := verify.Result(newClient(consul.Options{
			Addresses: []string{"http://fake"}, MaxWatches: overviewConnections, Log: zerolog.Nop(), Dial: o.refusing(pipe.DialContext),
		})).Must(t)
		t.Cleanup(client.Close)
		var latest sync.Map // ids of the first service
		manager := discovery.NewManager(discovery.ManagerOptions{
			Sink: func(set discovery.Set) {
				if set.Service == serviceName(0) {
					latest.Clear()
					for _, i := range set.Instances {
						latest.Store(i.ID, true)
					}
				}
			},
		})
		var entries []*api.ServiceEntry
		register := func(id string) {
			e := discoverytest.Instance(serviceName(0), id, 1000+int(id[0]))
			node := fmt.Sprint("node-", int(id[0])%20)
			entries = append(slices.Clone(entries), discoverytest.OnNode(e, node, "10.0.0.1"))
			if len(entries) > 3 {
				entries = entries[1:]
			}
			fake.Set(serviceName(0), entries...)
		}
		register("a")
		for n := range services {
			if n > 0 {
				fake.Set(serviceName(n), discoverytest.Instance(serviceName(n), "a", 1000+n))
			}
			manager.Watch(serviceName(n), client.Source(ServiceOptions{Service: serviceName(n), Wait: time.Minute}))
		}
		fake.SetIndex(o.index)
		run(t, manager)
		time.Sleep(5 * time.Second)
		o.run(t, register, func(id string) bool {
			_, ok := latest.Load(id)
			return ok
		})
		s := client.Stats()
		verify.That(t, s.Shared == (services > overviewConnections), "%+v: shared %v with %d services", s, s.Shared, services)
	})
}

// An instance that registers before, in, or after an outage of whatever kind is used soon, with a
// connection for each service and with fewer.
func TestNewInstanceIsUsedAfterOutages(t *testing.T) {
	t.Parallel()
	base := uint64(time.Now().UnixNano())
	for n := range long.Count(t, uint64(1), 4) {
		seed := base + n
		random := func() *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Run("direct", func(t *testing.T) {
				outageInBubble(t, 1, random())
			})
			t.Run("overview", func(t *testing.T) {
				outageInBubble(t, overviewConnections+5, random())
			})
		})
	}
}
