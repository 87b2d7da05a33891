package wake

import (
	"sync"
	"testing"

	"sluice/test/verify"
)

// What is sent while nobody looks is one, and is not lost.
func TestOneWakesOnce(t *testing.T) {
	o := NewOne()
	for range 3 {
		o.Send()
	}
	<-o
	verify.Equal(t, len(o), 0, "what is left")
}

// Send wakes all who have called Wait before, and nobody after.
func TestAllWakesAllWhoWait(t *testing.T) {
	var a All
	a.Send() // nobody waits
	first, same := a.Wait(), a.Wait()
	verify.That(t, first == same, "two who wait have different channels")
	a.Send()
	<-first
	later := a.Wait()
	verify.That(t, later != first, "it wakes who waits since")
	select {
	case <-later:
		t.Error("a wait after Send ends at once")
	default:
	}
}

// Everyone who takes the channel before the change is woken, whoever else calls.
func TestAllMissesNoChange(t *testing.T) {
	var a All
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 1000 {
				c := a.Wait()
				a.Send()
				<-c
			}
		})
	}
	running.Wait()
}
