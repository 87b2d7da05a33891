package operator

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// fleet is replicas with one Consul, in virtual time.
type fleet struct {
	t        *testing.T
	kv       *discoverytest.KV
	replicas []*Peers
	log      *subprocess.Output
	clean    []func()
}

func inFleet(t *testing.T, do func(f *fleet)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fleet{t: t, kv: discoverytest.NewKV(), log: new(subprocess.Output)}
		f.add()
		f.add()
		do(f)
		for _, p := range f.replicas {
			p.Store.Close()
		}
		for _, clean := range f.clean {
			clean()
		}
	})
}

// add starts a replica, which knows nothing.
func (f *fleet) add() *Peers {
	pipe := discoverytest.ServePipe(http.Handler(f.kv))
	client, err := consul.New(consul.Options{Addresses: []string{"http://fake"}, Log: zerolog.Nop(), Dial: pipe.DialContext})
	verify.NoError(f.t, err)
	name := fmt.Sprint("replica-", len(f.replicas))
	p := New(Options{
		Backing: Backing{Consul: client, Prefix: "orders", Wait: func() time.Duration { return 5 * time.Minute }, Log: zerolog.New(f.log)},
		Replica: func() string { return name },
	})
	p.Store.Resume()
	f.replicas = append(f.replicas, p)
	f.clean = append(f.clean, client.Close, pipe.Close)
	f.settle()
	return p
}

// settle waits until nothing happens any more.
func (f *fleet) settle() { pass(10 * time.Second) }

// pass lets time pass in a bubble, and what is due happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// drain gives the order to a replica to drain a peer, or ends it.
func (f *fleet) drain(replica, peer int, on bool) {
	f.t.Helper()
	if on {
		verify.Succeeds(f.t, f.replicas[replica].Give(drainOf(star(peer))))
	} else {
		found, err := f.replicas[replica].Store.End(drainOf(star(peer)).Key(), "ann")
		verify.That(f.t, found && err == nil, "end: %v, %v", found, err)
	}
	f.settle()
}

// expect checks which peers all replicas and Consul have drained.
func (f *fleet) expect(what string, want ...int) {
	f.t.Helper()
	var keys []string
	for _, n := range want {
		keys = append(keys, drainOf(star(n)).Key())
	}
	slices.Sort(keys)
	for n, p := range f.replicas {
		verify.Slices(f.t, slices.Sorted(maps.Keys(p.Store.All())), keys, "%s: replica %d", what, n)
		verify.Equal(f.t, p.Status().Pending, 0, "%s: pending in replica %d", what, n)
	}
	var there []string
	for key := range f.kv.Backup() {
		if key != "orders/begun" {
			there = append(there, strings.TrimPrefix(key, "orders/"))
		}
	}
	slices.Sort(there)
	verify.Slices(f.t, there, keys, "%s: Consul", what)
}

// A backup of Consul brings back no order that has ended since, and no earlier one in place of a
// later one, and loses none that was given since: whoever has seen later writes it again, and says
// so.
func TestABackupBringsNoOrderBack(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.drain(0, 0, true)
		f.drain(0, 3, true)
		backup := f.kv.Backup()
		f.drain(1, 0, false)
		f.drain(1, 1, true)
		later := drainOf(star(3))
		later.Why = "later"
		verify.Succeeds(t, f.replicas[1].Give(later))
		f.settle()
		f.expect("before", 1, 3)
		f.kv.Restore(backup)
		f.settle()
		f.expect("restored", 1, 3)
		for n, p := range f.replicas {
			verify.Equal(t, p.Store.All()[later.Key()].Why, "later", "replica %d has the order", n)
		}
		verify.Contains(t, f.log.String(), "Consul is back at an earlier state", "the log")

		// Replicas that join later, and orders that are given and ended later, are as ever.
		f.add()
		f.expect("a new replica", 1, 3)
		f.drain(2, 0, true)
		f.expect("the order of a new replica", 0, 1, 3)
		f.drain(0, 3, false)
		f.drain(2, 1, false)
		f.expect("ended", 0)
	})
}

// The next process knows what the one before has seen, so a backup that is restored while it starts
// brings nothing back either.
func TestABackupBringsNoOrderBackToTheNextProcess(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.drain(0, 0, true)
		backup := f.kv.Backup()
		f.drain(1, 0, false)
		f.drain(1, 1, true)
		state := handedOver(t, f.replicas[0])
		f.replicas[0].Store.Close()
		f.replicas[1].Store.Close()
		f.replicas = nil
		f.kv.Restore(backup)
		next := f.add()
		next.Store.Pause()
		next.Store.use(state)
		next.Store.Resume()
		f.settle()
		f.expect("restored", 1)
	})
}

// The clock of a replica may be wrong: what it has seen counts, and not its clock. An order that is
// given after another one, anywhere, is later.
func TestOrdersDoNotDependOnClocks(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.drain(0, 0, true)
		f.kv.Restore(shifted(f.kv.Backup(), time.Hour)) // as if it was of a replica whose clock is an hour ahead
		f.settle()
		f.expect("ahead", 0)
		f.drain(1, 0, false)
		f.expect("ended by a replica that is behind")
		f.drain(0, 0, true)
		f.expect("given again", 0)
	})
}

// Consul begins anew, with a low index, and the replicas notice it at once: all orders are written
// again.
func TestAWipeLosesNoOrder(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.drain(0, 0, true)
		f.drain(0, 1, true)
		f.drain(1, 1, false)
		f.kv.Wipe()
		time.Sleep(6 * time.Minute)
		f.expect("wiped", 0)
		f.drain(1, 1, true)
		f.drain(0, 0, false)
		f.expect("after that", 1)
	})
}

// shifted returns a backup whose versions are later.
func shifted(backup map[string]api.KVPair, by time.Duration) map[string]api.KVPair {
	for key, p := range backup {
		p.Flags += uint64(by.Milliseconds())
		backup[key] = p
	}
	return backup
}
