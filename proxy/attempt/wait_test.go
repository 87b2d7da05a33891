package attempt

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/route"
	"sluice/test/balancertest"
	"sluice/test/verify"
)

// The only peer leaves while requests wait for its connection, and comes back: all of them wait for it, and then for the
// connection again, for what is left of the time.
func TestWhoWaitsForAConnectionOutlivesThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool(t, 1)
		verify.NoError(t, p.Reconfigure(balancertest.Complete(balancer.Options{Limits: balancer.Limits{PeerConnections: 1, Pending: 10}})))
		set := []discovery.Instance{p.Snapshot().All[0].Instance()}
		service := &route.Service{Pool: p, WaitForPeer: time.Minute, ConnectionWait: 10 * time.Second, Retry: route.Retry{Attempts: 1}}
		held := verify.Result(p.Pick(new(balancer.Query))).Must(t)
		const requests = 4
		errs := make(chan error, requests)
		for range requests {
			go func() {
				x := script{tries: []Result{Ended(ok)}, onTry: func() { time.Sleep(time.Second) }}
				_, _, err := Run(service, new(balancer.Query), &x)
				errs <- err
			}()
		}
		synctest.Wait()
		p.Apply(nil)
		held.Done(ok)
		time.Sleep(30 * time.Second)
		p.Apply(set)
		for range requests {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}
