package panics

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// survive makes panics end only their goroutines.
func survive(t *testing.T) {
	for at := range places {
		places[at].next.Store(0) // an earlier bubble has another time
	}
	Fatal.Store(false)
	t.Cleanup(func() { Fatal.Store(true) })
}

// observed collects the reports until the test ends.
func observed(t *testing.T) func() []Contained {
	var mu sync.Mutex
	var all []Contained
	t.Cleanup(Observe(func(c Contained) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
	}))
	return func() []Contained {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func fails() {
	var none []int
	none[len(none)] = 1
}

func TestPanicsAreFatalInTests(t *testing.T) {
	defer func() {
		verify.That(t, recover() != nil, "the panic was contained")
	}()
	defer Contain(Task, func() { t.Error("fail was called") })
	fails()
}

// A panic is counted, reported with its stack, and followed by fail, in which another one is
// contained too.
func TestContain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		survive(t)
		reports, before := observed(t), Total(Probe)
		failed := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer Contain(Probe, func() {
				failed++
				fails()
			})
			fails()
		}()
		<-done
		verify.Equal(t, failed, 1, "calls of fail")
		verify.Equal(t, Total(Probe), before+2, "panics")
		all := reports()
		verify.Require(t, len(all) == 1 && all[0].Place == Probe && strings.Contains(all[0].Value, "out of range") && strings.Contains(string(all[0].Stack), "panics.fails"), "reports: %+v", all)
		time.Sleep(reportEvery)
		func() {
			defer Contain(Probe, nil)
			fails()
		}()
		all = reports()
		verify.That(t, len(all) == 2 && all[1].Unreported == 1, "after a second: %d reports", len(all))
	})
}

func TestContainWithoutPanic(t *testing.T) {
	before := Total(Task)
	func() { defer Contain(Task, func() { t.Error("fail was called") }) }()
	verify.Equal(t, Total(Task), before, "a panic was counted")
}

// A loop begins again after its pause, until it returns or must end.
func TestRepeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		survive(t)
		observed(t)
		start, runs := time.Now(), 0
		Repeat(t.Context().Done(), Watch, time.Minute, func() {
			if runs++; runs < 3 {
				fails()
			}
		})
		verify.Equal(t, runs, 3, "runs")
		verify.Equal(t, time.Since(start), 2*time.Minute, "took")
		stopped := make(chan struct{})
		close(stopped)
		Repeat(stopped, Watch, time.Minute, func() {
			runs++
			fails()
		})
		verify.Equal(t, runs, 4, "runs after done")
		verify.Equal(t, time.Since(start), 2*time.Minute, "took with done")
	})
}

// Each task begins again after a panic; stop ends their context, and returns after them.
func TestStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		survive(t)
		observed(t)
		runs, ended := 0, 0
		stop := Start(t.Context(), Watch, func(ctx context.Context) {
			if runs++; runs < 3 {
				fails()
			}
		}, func(ctx context.Context) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended++
		})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		verify.That(t, runs == 3 && ended == 0, "%d runs and %d ends, want 3 and none", runs, ended)
		stop()
		verify.That(t, runs == 3 && ended == 1, "%d runs and %d ends after the stop", runs, ended)
	})
}

func TestPlacesHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for p := range Place(NumPlaces) {
		verify.That(t, p.String() != "" && !seen[p.String()], "place %d is %q", p, p)
		seen[p.String()] = true
	}
}
