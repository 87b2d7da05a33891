package balancer

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// During concurrent writes, status, weight, state, reasons and use of a peer in a view are
// consistent with each other and with the snapshot.
func TestViewIsConsistent(t *testing.T) {
	const peers, looks = 100, 100
	healthy, failing := instances(peers), instances(peers)
	for i := range peers {
		healthy[i].Weight = 7
		failing[i].Status, failing[i].Weight, failing[i].Detail = discovery.StatusCritical, 3, "refused"
	}
	pool := newTestPool(t, Options{Policy: PolicyHash}, healthy...)

	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		for turn := 0; ; turn++ {
			select {
			case <-stop:
				return
			default:
			}
			switch turn % 4 {
			case 0:
				pool.Apply(failing)
			case 1:
				pool.Apply(healthy)
			case 2, 3:
				setReason(pool, healthy[turn/4%peers].Key(), ReasonEjected, turn%4 == 2, "resets")
			}
		}
	})
	defer writer.Wait()
	defer close(stop)

	want := map[string]bool{
		"passing 7 up [] true": true,
		"critical 3 unhealthy [consul: critical: refused] false": true,
		"passing 7 ejected [ejected: resets] false":              true,
	}
	seen := make(map[string]bool)
	for look := 0; look < looks || len(seen) < len(want); look++ {
		v := pool.View()
		used := 0
		for _, p := range v.Peers {
			got := fmt.Sprint(p.Instance().Status, p.Weight(), " ", p.State(), " ", p.Reasons(), p.Used)
			seen[got] = true
			verify.Require(t, want[got], "%s: %s", p.Peer, got)
			if p.Used {
				used++
			}
			verify.Require(t, p.Used == slices.Contains(v.Snapshot.Eligible, p.Peer),
				"%s: used %t, but that is not what picks do", p.Peer, p.Used)
		}
		s := v.Snapshot
		verify.Require(t, used == len(s.Eligible) && len(v.Peers) == len(s.All)+len(s.Draining),
			"%d peers, %d of them used; in the snapshot %d and %d", len(v.Peers), used, len(s.All), len(s.Eligible))
	}
}
