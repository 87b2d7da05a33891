package healthcheck

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/discovery"
)

// unlisted returns instances that the registry no longer lists.
func unlisted(n int) []discovery.Instance {
	set := instances(n)
	for i := range set {
		set[i].Unlisted = time.Now()
	}
	return set
}

// awaitCheck waits for the next check of peer n.
func (f *fixture) awaitCheck(probe *script, n int) {
	for before, _ := probe.count(instance(n)); ; {
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if now, _ := probe.count(instance(n)); now > before {
			return
		}
	}
}

// Nobody but the check says that the peer works: the first failure counts.
func TestOneFailureIsEnoughForAnUnlistedPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(2))
		time.Sleep(30 * time.Second)
		f.Apply(unlisted(2))
		synctest.Wait()
		if f.eligible() != 2 {
			t.Fatalf("%d eligible that have passed their checks, want 2", f.eligible())
		}
		probe.set(instance(0), true)
		f.awaitCheck(probe, 0)
		if f.eligible() != 1 || f.peer(0).Used() {
			t.Errorf("%d eligible after one failure, want 1", f.eligible())
		}
		probe.set(instance(0), false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f.eligible() != 2 {
			t.Errorf("%d eligible after two passes, want 2", f.eligible())
		}
	})
}

func TestAFailureFromBeforeCountsOnceAPeerIsUnlisted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		f.Apply(instances(1))
		time.Sleep(30 * time.Second)
		probe.set(instance(0), true)
		f.awaitCheck(probe, 0)
		if f.eligible() != 1 {
			t.Fatal("one failure takes a peer out that is listed")
		}
		f.Apply(unlisted(1))
		synctest.Wait()
		if f.eligible() != 0 {
			t.Error("the peer is used, though its latest check failed")
		}
		if reasons := f.peer(0).Reasons(); reasons[0] != "active: script: status 500" {
			t.Errorf("reasons %q", reasons)
		}
	})
}

func TestAnUnlistedPeerThatIsNewHasToPassFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := newScript()
		probe.takes = 500 * time.Millisecond
		f := judged(t, activeSettings(probe), Options{})
		defer f.close()
		probe.set(instance(1), true)
		f.Apply(unlisted(2))
		synctest.Wait()
		if f.eligible() != 0 {
			t.Errorf("%d eligible before a check", f.eligible())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if f.eligible() != 1 || !f.peer(0).Used() {
			t.Errorf("%d eligible, want the one that passed", f.eligible())
		}
	})
}
