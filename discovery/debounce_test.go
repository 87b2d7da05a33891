package discovery

import (
	"testing"
	"time"

	"sluice/test/verify"
)

func TestFirstSetIsPassedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("star").set(instances("b", "a"))
		b.start("moon").set(nil)
		b.expect(0, call{0, "star", "a b"}, call{0, "moon", ""})
		for _, s := range b.Statuses() {
			verify.Equal(t, s.Changes, 1, "%s: changes", s.Service)
		}
	})
}

func TestUnchangedSetIsDropped(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a", "b")
		w.set(instances("b", "a"))
		b.expect(5 * time.Second)
	})
}

func TestUnchangedSetDoesNotProlongTheWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a")
		w.set(instances("a", "b"))
		b.expect(90 * ms)
		w.set(instances("b", "a"))
		b.expect(100*ms, call{100 * ms, "star", "a b"})
	})
}

func TestBurstOfAdditionsIsBatched(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		w.set(nil)
		b.expect(0, call{0, "star", ""})
		b.expect(2000 * ms)

		w.set(instances("a")) // after a quiet period: at once
		b.expect(2050*ms, call{2000 * ms, "star", "a"})
		w.set(instances("a", "b"))
		b.expect(2100 * ms)
		w.set(instances("a", "b", "c"))
		b.expect(2500*ms, call{2200 * ms, "star", "a b c"})
	})
}

func TestSteadyAdditionsWaitAtMostMaxWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a")
		for n := range 12 { // from 50 ms to 985 ms, never quiet
			b.expect(time.Duration(50+85*n) * ms)
			set := instances("a")
			set[0].Weight = 2 + n
			w.set(set)
		}
		b.expect(1049 * ms)
		b.expect(1050*ms, call{1050 * ms, "star", "a*13"})
	})
}

func TestRemovalIsPassedAtOnceWithPendingAdditions(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a", "b")
		w.set(instances("a", "b", "c"))
		b.expect(20 * ms)
		w.set(instances("b", "c"))
		b.expect(2000*ms, call{20 * ms, "star", "b c"})
	})
}

// A rolling deployment removes an instance and adds another.
func TestAdditionAfterRemovalIsPassedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a", "b")
		b.expect(500 * ms)
		w.set(instances("b"))
		b.expect(502*ms, call{500 * ms, "star", "b"})
		w.set(instances("b", "c"))
		b.expect(520*ms, call{502 * ms, "star", "b c"})
		w.set(instances("b", "c", "d"))
		b.expect(619 * ms)
		b.expect(900*ms, call{620 * ms, "star", "b c d"})
		w.set(instances("c", "d", "e")) // both at once: it counts as an addition
		b.expect(910*ms, call{900 * ms, "star", "c d e"})
		w.set(instances("c", "d", "e", "f"))
		b.expect(1009 * ms)
		b.expect(1010*ms, call{1010 * ms, "star", "c d e f"})
	})
}

func TestOutOfServiceIsPassedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Instance)
		want   string
	}{
		{"critical", func(i *Instance) { i.Status, i.Weight = StatusCritical, 0 }, "a(critical) b"},
		{"critical with a weight", func(i *Instance) { i.Status = StatusCritical }, "a(critical) b"},
		{"maintenance", func(i *Instance) { i.Status, i.Weight = StatusMaintenance, 0 }, "a(maintenance) b"},
		{"warning without weight", func(i *Instance) { i.Status, i.Weight = StatusWarning, 0 }, "a(warning) b"},
		{"weight 0", func(i *Instance) { i.Weight = 0 }, "a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				w := b.startWith("a", "b")
				set := instances("a", "b")
				tt.change(&set[0])
				b.expect(10 * ms)
				w.set(set)
				b.expect(10*ms, call{10 * ms, "star", tt.want})
			})
		})
	}
}

// A pool whose active checks override a critical status uses the instance until it is in
// maintenance mode.
func TestOtherReasonToBeOutOfServiceIsPassedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.start("star")
		set := instances("a")
		set[0].Status = StatusCritical
		w.set(set)
		b.expect(0, call{0, "star", "a(critical)"})
		b.expect(10 * ms)
		set = instances("a")
		set[0].Status = StatusMaintenance
		w.set(set)
		b.expect(10*ms, call{10 * ms, "star", "a(maintenance)"})
		set = instances("a")
		set[0].Status, set[0].Detail = StatusMaintenance, "another note"
		w.set(set)
		b.expect(109 * ms)
		b.expect(110*ms, call{110 * ms, "star", "a(maintenance)"})
	})
}

func TestUpdateThatStaysInServiceWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a")
		set := instances("a")
		set[0].Status, set[0].Weight = StatusWarning, 5
		w.set(set)
		b.expect(99 * ms)
		b.expect(100*ms, call{100 * ms, "star", "a(warning)*5"})
	})
}

func TestFlappingAdditionCancelsItself(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a")
		w.set(instances("a", "b"))
		b.expect(50 * ms)
		w.set(instances("a"))
		b.expect(3000 * ms)
		w.set(instances("a", "b")) // after a quiet period: at once
		b.expect(3000*ms, call{3000 * ms, "star", "a b"})
	})
}

func TestServicesDoNotDelayEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		star, moon := b.start("star"), b.start("moon")
		star.set(instances("a"))
		moon.set(instances("a"))
		b.expect(0, call{0, "star", "a"}, call{0, "moon", "a"})
		star.set(instances("a", "b"))
		b.expect(40 * ms)
		moon.set(instances("a", "b"))
		b.expect(60 * ms)
		moon.set(instances("a"))
		b.expect(1000*ms, call{100 * ms, "star", "a b"})
	})
}

func TestSlowSinkGetsTheLatestSet(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.slow = time.Second
		w := b.start("star")
		w.set(instances("a", "b", "c"))
		b.expect(10*ms, call{0, "star", "a b c"})
		w.set(instances("a", "b"))
		w.set(instances("a"))
		b.expect(5*time.Second, call{1000 * ms, "star", "a"})
	})
}

func TestSetDebounceAppliesToPendingChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.startWith("a")
		w.set(instances("a", "b"))
		b.expect(10 * ms)
		b.SetDebounce(Debounce{Quiet: 500 * ms, MaxWait: 2 * time.Second})
		b.expect(499 * ms)
		b.expect(500*ms, call{500 * ms, "star", "a b"})
		b.SetDebounce(Debounce{})
		w.set(instances("a", "b", "c"))
		b.expect(500*ms, call{500 * ms, "star", "a b c"})
	})
}
