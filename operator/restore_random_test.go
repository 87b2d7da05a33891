package operator

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/long"
)

// Replicas that give and end orders in turn, and that join, agree with each other, with Consul and
// with what operators have ordered last, also if backups of Consul are restored and Consul begins
// anew in between. The name of a failed subtest is its seed.
func TestRandomHistoriesOfOrders(t *testing.T) {
	for seed := range long.Count(t, uint64(8), 30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inFleet(t, func(f *fleet) { randomHistory(f, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

// randomHistory takes random steps, and checks the orders after each, until the first failure.
func randomHistory(f *fleet, r *rand.Rand) {
	const peers, steps, replicas = 4, 25, 4
	drained := make([]bool, peers)
	var backup map[string]api.KVPair
	history := ""
	for n := 0; n < steps && !f.t.Failed(); n++ {
		switch step := r.IntN(10); {
		case step < 6:
			peer, replica := r.IntN(peers), r.IntN(len(f.replicas))
			drained[peer] = !drained[peer]
			history += fmt.Sprintf(" drain(%d,%d,%v)", replica, peer, drained[peer])
			f.drain(replica, peer, drained[peer])
		case step == 6:
			history += " backup"
			backup = f.kv.Backup()
		case step == 7 && len(f.replicas) < replicas:
			history += " join"
			f.add()
		case step == 8 && len(backup) > 0:
			history += " restore"
			f.kv.Restore(backup)
			f.settle()
		case step == 9:
			history += " wipe"
			f.kv.Wipe()
			time.Sleep(6 * time.Minute)
			f.settle()
		}
		var want []int
		for peer, is := range drained {
			if is {
				want = append(want, peer)
			}
		}
		f.expect(history, want...)
	}
}
