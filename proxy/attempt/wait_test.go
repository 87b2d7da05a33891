package attempt

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/route"
	"sluice/test/verify"
)

// The only peer leaves while requests wait for its connection, and comes back: all of them wait for
// it, and then for the connection again, for what is left of the time.
func TestWhoWaitsForAConnectionOutlivesThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limited(t, 1, balancer.Limits{PeerConnections: 1, Pending: 10})
		set := []discovery.Instance{p.Snapshot().All[0].Instance()}
		service := &route.Service{Pool: p, WaitForPeer: time.Minute, ConnectionWait: 10 * time.Second, Retry: route.Retry{Attempts: 1}}
		held := verify.Result(p.Pick(new(balancer.Query))).Must(t)
		const requests = 4
		errs := make(chan error, requests)
		for range requests {
			go func() {
				x := script{outcomes: []balancer.Outcome{ok}, onTry: func() { time.Sleep(time.Second) }}
				errs <- x.run(service).err
			}()
		}
		synctest.Wait()
		p.Apply(nil)
		held.Done(ok)
		time.Sleep(30 * time.Second)
		p.Apply(set)
		for range requests {
			verify.Succeeds(t, <-errs)
		}
	})
}

// A request whose peer is suspected while all others are at their limits goes to one that has room
// later. It is counted as refused once.
func TestSuspectedPeerIsLeftForOneThatWasFull(t *testing.T) {
	for name, limits := range map[string]balancer.Limits{
		"connections": {PeerConnections: 1}, "requests of a peer": {PeerRequests: 1}, "requests": {Requests: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := limited(t, 2, limits)
				held := verify.Result(p.Pick(new(balancer.Query))).Must(t)
				service := &route.Service{Pool: p, Retry: route.Retry{Attempts: 2}}
				x := script{outcomes: []balancer.Outcome{suspected(ok), ok}}
				looks := 0
				x.onStay = func(changed <-chan struct{}) bool {
					if looks++; looks == 2 {
						held.Done(ok)
					}
					select {
					case <-changed:
					case <-time.After(time.Minute):
						t.Error("nobody tells of the room")
					}
					return true
				}
				verify.Equal(t, x.run(service), result{ok, 2, nil, "try stay stay leave try"}, "the end")
				var refusals uint64
				for _, n := range p.Admission.Refusals() {
					refusals += n
				}
				verify.Equal(t, refusals, 1, "refusals of one request")
			})
		})
	}
}

// A request that has waited for a peer of one service waits for one of another for what is left of
// the time, and then no more.
func TestAllServicesShareTheTimeForAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x script
		var query balancer.Query
		for _, most := range []time.Duration{2 * time.Second, 5 * time.Second, 5 * time.Second} {
			_, err := x.Run(&route.Service{Pool: pool(t, 0), WaitForPeer: most}, &query, &x)
			verify.Equal(t, err, balancer.ErrNoPeers, "a wait of %v", most)
		}
		verify.Slices(t, x.calls, []string{"wait 2s", "wait 3s"}, "calls")
	})
}

// What it has waited for a connection is not a part of that time.
func TestTimeForAConnectionIsNoneForAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limited(t, 1, oneEach)
		held := verify.Result(p.Pick(new(balancer.Query))).Must(t)
		var x script
		var query balancer.Query
		_, err := x.Run(&route.Service{Pool: p, ConnectionWait: time.Second}, &query, &x)
		verify.Equal(t, err, balancer.ErrConnectionsSaturated, "a wait for a connection")
		_, err = x.Run(&route.Service{Pool: pool(t, 0), WaitForPeer: 2 * time.Second}, &query, &x)
		verify.Equal(t, err, balancer.ErrNoPeers, "a wait for a peer")
		verify.Slices(t, x.calls, []string{"wait 1s", "wait 2s"}, "calls")
		held.Done(ok)
	})
}

// A request waits once, and not at all, for a peer of a service that a reload has removed: it would
// not come.
func TestNobodyWaitsForAPeerOfARemovedService(t *testing.T) {
	p := pool(t, 0)
	p.Retire(time.Hour)
	var x script
	got := x.run(&route.Service{Pool: p, WaitForPeer: time.Second})
	verify.Equal(t, got, result{err: balancer.ErrNoPeers, calls: "wait 1s"}, "the end")
}

// Nor does one whose client has left wait again for what is left of its time.
func TestWhoIsGoneWaitsNoLongerForAConnection(t *testing.T) {
	p := limited(t, 1, oneEach)
	verify.Result(p.Pick(new(balancer.Query))).Must(t)
	x := script{gone: true}
	got := x.run(&route.Service{Pool: p, ConnectionWait: time.Second})
	verify.Equal(t, got, result{err: balancer.ErrConnectionsSaturated, calls: "wait 1s"}, "the end")
}

// A request that waits for a connection to the only peer that it has not tried goes back to one
// that it has left, and that is well again, when that only peer leaves.
func TestPeerThatWasLeftTakesThePlaceOfOneThatIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limited(t, 3, oneEach)
		held := verify.Result(p.Pick(new(balancer.Query))).Must(t)
		service := &route.Service{Pool: p, ConnectionWait: time.Minute, Retry: route.Retry{Attempts: 3}}
		x := script{outcomes: []balancer.Outcome{suspected(ok), reset, ok}}
		x.onTry = func() {
			if x.Tries != 2 {
				return
			}
			left, reset := x.peers[0].Instance(), x.peers[1].Instance()
			ill := left
			ill.Status, ill.Weight = discovery.StatusCritical, 0
			p.Apply([]discovery.Instance{ill, reset, held.Peer.Instance()})
			time.AfterFunc(time.Second, func() { p.Apply([]discovery.Instance{left, reset}) })
		}
		verify.Equal(t, x.run(service), result{ok, 3, nil, "try leave try wait 1m0s try 0"}, "the end")
		held.Done(ok)
	})
}
