package discovery

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// What a source reports, and what Sink gets, each with its time in ms; a set is in the notation of
// parseSet.
func TestDebounce(t *testing.T) {
	steady := "0: a"
	for n := range 12 { // from 50 ms to 985 ms, never quiet
		steady += fmt.Sprintf(", %d: a*%d", 50+85*n, 2+n)
	}
	for _, tt := range []struct{ name, reports, want string }{
		{"an unchanged set is dropped", "0: a b, 0: b a", "0: a b"},
		{"an unchanged set does not prolong the wait", "0: a, 0: a b, 90: b a", "0: a, 100: a b"},
		{"additions are batched, but for the first one after a quiet period", "0:, 2000: a, 2050: a b, 2100: a b c", "0:, 2000: a, 2200: a b c"},
		{"steady additions wait at most for MaxWait", steady, "0: a, 1050: a*13"},
		{"an addition that is undone is dropped", "0: a, 0: a b, 50: a, 3000: a b", "0: a, 3000: a b"},
		{"an update that stays in service waits", "0: a, 0: a:warning*5", "0: a, 100: a(warning)*5"},
		{"a removal does not wait, nor do pending additions", "0: a b, 0: a b c, 20: b c", "0: a b, 20: b c"},
		// A rolling deployment removes an instance and adds another. Both at once count as an
		// addition.
		{"an addition after a removal does not wait", "0: a b, 500: b, 502: b c, 520: b c d, 900: c d e, 910: c d e f",
			"0: a b, 500: b, 502: b c, 620: b c d, 900: c d e, 1010: c d e f"},
		{"critical", "0: a b, 10: a:critical b", "0: a b, 10: a(critical) b"},
		{"critical with a weight", "0: a b, 10: a:critical*1 b", "0: a b, 10: a(critical) b"},
		{"maintenance", "0: a b, 10: a:maintenance b", "0: a b, 10: a(maintenance) b"},
		{"warning without weight", "0: a b, 10: a:warning*0 b", "0: a b, 10: a(warning) b"},
		{"weight 0", "0: a b, 10: a*0 b", "0: a b, 10: a b"},
		// A pool whose active checks override a critical status uses the instance until it is in
		// maintenance mode.
		{"another reason to be out of service", "0: a:critical, 10: a:maintenance, 10: a:maintenance*9", "0: a(critical), 10: a(maintenance), 110: a(maintenance)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				w := b.start("star")
				for report := range strings.SplitSeq(tt.reports, ", ") {
					at, words, _ := strings.Cut(report, ":")
					ms := verify.Result(strconv.Atoi(at)).Must(t)
					time.Sleep(time.Until(b.begin.Add(time.Duration(ms) * time.Millisecond)))
					w.set(parseSet(words))
					synctest.Wait()
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				var got []string
				for _, c := range b.calls {
					got = append(got, strings.TrimRight(fmt.Sprintf("%d: %s", c.after.Milliseconds(), c.set), " "))
				}
				verify.Equal(t, strings.Join(got, ", "), tt.want, "Sink")
			})
		})
	}
}

// Of a service with one leader, a demotion does not wait, as a removal does not.
func TestDemotionDoesNotWait(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		led := func(leader string, ids ...string) []Instance {
			set := instances(ids...)
			for n := range set {
				set[n].Follower = set[n].ID != leader
			}
			return set
		}
		w := b.start("star")
		w.set(led("a", "a", "b"))
		b.expect(0, call{0, "star", "a b"})
		w.set(led("a", "a", "b", "c")) // waits for others
		b.expect(20 * ms)
		w.set(led("b", "a", "b", "c"))
		b.expect(21*ms, call{20 * ms, "star", "a b c"})
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
