package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/certificates"
	"sluice/discovery"
	"sluice/test/verify"
)

// Checks that fail while the mesh denies connections take no peer out, also one that was not
// checked before, and bring back one that was taken out before the denial was known. When it ends,
// they count again.
func TestChecksOfADeniedServiceTakeNobodyOut(t *testing.T) {
	var denied atomic.Bool
	probe := newScript()
	settings := Settings{Active: &Active{
		Probe:    probe,
		Schedule: Schedule{Interval: time.Second, FailingInterval: time.Second, Timeout: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1, MustPassFirst: true},
		Denied:   func(i discovery.Instance) bool { return denied.Load() && i.ID != instance(2).ID },
	}}
	bubble(t, settings, 1, func(t *testing.T, f *fixture) {
		verify.Require(t, f.eligible() == 1, "%d eligible, want 1", f.eligible())
		for n := range 3 {
			probe.set(instance(n), true)
		}
		pass(2 * time.Second)
		verify.Require(t, f.eligible() == 0, "the peer is not taken out before the denial is known")
		synctest.Wait()
		denied.Store(true)
		f.Apply(instances(3))
		pass(5 * time.Second)
		verify.That(t, f.eligible() == 2 && !f.peer(2).Used(), "%d eligible, want the 2 that are denied", f.eligible())
		synctest.Wait()
		denied.Store(false)
		pass(5 * time.Second)
		verify.Equal(t, f.eligible(), 0, "eligible after the denial")
	})
}

// While sluice has no certificate for any connection, checks take nobody out.
func TestChecksWithoutACertificateTakeNobodyOut(t *testing.T) {
	settings := Settings{Active: &Active{Probe: lacking{newScript()}, Schedule: Schedule{Interval: time.Second, FailingInterval: time.Second, Timeout: time.Second, UnhealthyThreshold: 1, HealthyThreshold: 1}}}
	bubble(t, settings, 2, func(t *testing.T, f *fixture) {
		pass(5 * time.Second)
		verify.Equal(t, f.eligible(), 2, "eligible")
	})
}

// lacking is a probe that lacks a certificate.
type lacking struct{ *script }

func (lacking) Check(context.Context, Target) error {
	return fmt.Errorf("connect: %w", certificates.LackError{Err: errors.New("no certificate yet")})
}
