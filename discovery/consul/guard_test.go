package consul

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/discovery"
)

// parseSet makes a set of words such as "a", "b:critical" and "c:maintenance".
func parseSet(words string) []discovery.Instance {
	var set []discovery.Instance
	for n, word := range strings.Fields(words) {
		id, status, _ := strings.Cut(word, ":")
		i := discovery.Instance{Service: "star", ID: id, Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1}
		switch status {
		case "critical":
			i.Status, i.Weight = discovery.StatusCritical, 0
		case "maintenance":
			i.Status, i.Weight = discovery.StatusMaintenance, 0
		case "moved":
			i.Port = 81 + n
		}
		set = append(set, i)
	}
	return set
}

func formatSet(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.Status != discovery.StatusPassing {
			word += ":" + i.Status.String()
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestGuard(t *testing.T) {
	type step struct {
		after  time.Duration // since the step before
		answer string        // "!" at the start: the index went backwards; "error": a query failed
		want   string        // what is reported
	}
	const s = time.Second
	for _, tt := range []struct {
		name  string
		hold  time.Duration
		steps []step
	}{
		{"one of several leaves at once", 30 * s, []step{
			{0, "a b c", "a b c"}, {s, "a c", "a c"}, {s, "a", "a"},
		}},
		{"the last one leaves at once", 30 * s, []step{
			{0, "a", "a"}, {s, "", ""},
		}},
		{"the last one leaves at once when the others left long ago", 30 * s, []step{
			{0, "a b", "a b"}, {s, "a", "a"}, {11 * s, "", ""},
		}},
		{"all listed as critical is the truth", 30 * s, []step{
			{0, "a b", "a b"}, {s, "a:critical b:critical", "a:critical b:critical"},
		}},
		{"maintenance of all is the truth", 30 * s, []step{
			{0, "a b", "a b"}, {s, "error", ""}, {s, "a:maintenance b:maintenance", "a:maintenance b:maintenance"},
		}},
		{"sudden empty is held, then given up", 30 * s, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {29 * s, "", "a b"}, {s, "", ""}, {s, "", ""},
		}},
		{"held instances are released one by one", 30 * s, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {s, "a", "a b"}, {s, "a b", "a b"}, {s, "b", "b"}, {11 * s, "", ""},
		}},
		{"one after the other within the window is sudden", 30 * s, []step{
			{0, "a b c", "a b c"}, {s, "b c", "b c"}, {s, "c", "c"}, {s, "", "a b c"}, {30 * s, "", ""},
		}},
		{"what left shortly before a sudden loss comes back", 30 * s, []step{
			{0, "a b c d", "a b c d"}, {s, "b c d", "b c d"}, {9 * s, "b d", "b d"}, {s, "d", "d"}, {s, "", "b c d"},
			{s, "b", "b c d"}, {29 * s, "b", "b"}, {s, "b", "b"},
		}},
		{"what is listed again has not left", 30 * s, []step{
			{0, "a b c", "a b c"}, {s, "b c", "b c"}, {s, "a:critical", "a:critical b c"},
		}},
		{"registration begins critical", 30 * s, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {s, "a:critical", "a b"}, {s, "a:critical b:critical", "a b"},
			{s, "a b:critical", "a b"}, {s, "a b", "a b"}, {s, "a:critical b", "a:critical b"},
		}},
		{"critical until the hold ends", 30 * s, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {30 * s, "a:critical", "a:critical"},
		}},
		{"after an error the last one is held", 30 * s, []step{
			{0, "a", "a"}, {s, "error", ""}, {s, "", "a"}, {30 * s, "", ""},
		}},
		{"after an error a new registration of the last one is held", 30 * s, []step{
			{0, "a", "a"}, {s, "error", ""}, {s, "a:critical", "a"}, {s, "a", "a"},
			{s, "a:critical", "a"}, {s, "a", "a"}, {7 * s, "a:critical", "a:critical"},
		}},
		{"long after an error the last one leaves at once", 30 * s, []step{
			{0, "a", "a"}, {s, "error", ""}, {s, "a", "a"}, {11 * s, "", ""},
		}},
		{"an index that went backwards holds all that miss", 30 * s, []step{
			{0, "a b c", "a b c"}, {s, "! a:critical b", "a b c"}, {s, "a b", "a b c"}, {s, "b", "b c"}, {28 * s, "b", "b"},
		}},
		{"maintenance ends a hold", 30 * s, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {s, "a:maintenance", "a:maintenance b"},
		}},
		{"what was out of service is not held", 30 * s, []step{
			{0, "a b:critical", "a b:critical"}, {s, "error", ""}, {s, "", "a"},
		}},
		{"an instance at another address is another one", 30 * s, []step{
			{0, "a b", "a b"}, {s, "a:moved", "a"},
		}},
		{"no hold", 0, []step{
			{0, "a b", "a b"}, {s, "! a", "a"}, {s, "error", ""}, {s, "", ""},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := guard{emptyHold: tt.hold}
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			for n, step := range tt.steps {
				now = now.Add(step.after)
				if step.answer == "error" {
					g.failed(now)
					continue
				}
				answer, regressed := strings.CutPrefix(step.answer, "!")
				set := parseSet(answer)
				if lost := g.doubtful(now, g.loss(set), regressed); len(lost) > 0 {
					g.hold(now, lost, set)
				}
				got, kept, _ := g.accept(now, set)
				if formatSet(got) != step.want {
					t.Fatalf("step %d, answer %q: got %q, want %q", n, step.answer, formatSet(got), step.want)
				}
				if expiry, ok := g.expiry(); ok != (kept > 0) || ok && !expiry.After(now) {
					t.Fatalf("step %d: %d kept, expiry %v, %v", n, kept, expiry, ok)
				}
			}
		})
	}
}
