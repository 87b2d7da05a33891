package consul

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/discovery"
)

// parseSet makes a set of words such as "a", "b:critical", "c:maintenance" and
// "d:unchecked".
func parseSet(words string) []discovery.Instance {
	var set []discovery.Instance
	for n, word := range strings.Fields(words) {
		id, status, _ := strings.Cut(word, ":")
		i := discovery.Instance{Service: "star", ID: id, Node: "n", Address: "10.0.0.1", Port: 1000 + int(id[0]), Weight: 1}
		switch status {
		case "critical", "unchecked":
			i.Status, i.Weight = discovery.StatusCritical, 0
		case "maintenance":
			i.Status, i.Weight = discovery.StatusMaintenance, 0
		case "moved":
			i.Port = 81 + n
		case "at-a":
			i.Port = 1000 + 'a'
		}
		set = append(set, i)
	}
	return set
}

// parseUnchecked returns which words are such as "d:unchecked".
func parseUnchecked(words string) map[process]bool {
	unchecked := make(map[process]bool)
	for n, i := range parseSet(words) {
		if strings.HasSuffix(strings.Fields(words)[n], ":unchecked") {
			unchecked[processOf(i)] = true
		}
	}
	return unchecked
}

// formatSet is the inverse of parseSet. What is not listed any more has a "?".
func formatSet(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.Status != discovery.StatusPassing {
			word += ":" + i.Status.String()
		}
		if !i.Unlisted.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// step is an answer, and what becomes of it.
type step struct {
	after  time.Duration // since the step before
	answer string        // "!" at the start: the index went backwards; "error": a query failed
	want   string        // what is reported
}

var guardBegin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func playGuard(t *testing.T, g *guard, steps []step) {
	t.Helper()
	now := guardBegin
	for n, step := range steps {
		now = now.Add(step.after)
		if step.answer == "error" {
			g.failed(now)
			continue
		}
		answer, regressed := strings.CutPrefix(step.answer, "!")
		set := parseSet(answer)
		if lost := g.doubtful(now, g.loss(set, parseUnchecked(answer)), regressed); len(lost) > 0 {
			g.hold(now, lost, set)
		}
		got, kept := g.accept(now, set)
		if formatSet(got) != step.want {
			t.Fatalf("step %d, answer %q: got %q, want %q", n, step.answer, formatSet(got), step.want)
		}
		if expiry, ok := g.expiry(); ok != (kept.all() > 0) || ok && !expiry.After(now) {
			t.Fatalf("step %d: %+v, expiry %v, %v", n, kept, expiry, ok)
		}
	}
}

func TestGuard(t *testing.T) {
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
		{"what left in a roll-out does not come back", 30 * s, []step{
			{0, "a b", "a b"}, {s, "a b c:critical", "a b c:critical"}, {s, "a b c", "a b c"}, {s, "b c", "b c"},
			{s, "b c d", "b c d"}, {s, "c d", "c d"}, {s, "", "b c d"},
		}},
		{"what returns is nothing new", 30 * s, []step{
			{0, "a b c", "a b c"}, {s, "c", "c"}, {s, "a c", "a c"}, {s, "", "a b c"},
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
		{"after an error a new registration of some is held, what fails its check is not", 30 * s, []step{
			{0, "a b c d", "a b c d"}, {s, "error", ""}, {s, "a b:unchecked c:critical", "a b c:critical"},
			{s, "a b:unchecked c", "a b c"}, {s, "a b c", "a b c"}, {s, "a b:critical c", "a b:critical c"},
		}},
		{"without an error a new registration of some is out at once", 30 * s, []step{
			{0, "a b", "a b"}, {s, "a b:unchecked", "a b:critical"},
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
			playGuard(t, &guard{emptyHold: tt.hold}, tt.steps)
		})
	}
}

func TestGuardKeepsWhatStillAnswers(t *testing.T) {
	const s, m = time.Second, time.Minute
	for _, tt := range []struct {
		name  string
		hold  time.Duration
		keep  time.Duration
		steps []step
	}{
		{"from the end of the hold, for its time", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {29 * s, "", "a b"}, {s, "", "a? b?"}, {9 * m, "", "a? b?"}, {59 * s, "", "a? b?"}, {s, "", ""},
		}},
		{"what did not leave suddenly is not kept", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "b", "b"}, {11 * s, "", ""},
		}},
		{"one that is listed is as ever", 30 * s, 10 * m, []step{
			{0, "a b c", "a b c"}, {s, "", "a b c"}, {31 * s, "", "a? b? c?"}, {s, "b", "a? b c?"}, {m, "b", "a? b c?"}, {s, "b c", "a? b c"},
		}},
		{"all go when as many are listed as before", 30 * s, 10 * m, []step{
			{0, "a b c", "a b c"}, {s, "", "a b c"}, {31 * s, "x", "a? b? c? x"}, {s, "x y", "a? b? c? x y"}, {s, "x y z", "x y z"},
		}},
		{"once all are there nothing stands in", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {31 * s, "x y:critical", "a? b? x y:critical"}, {s, "x y", "x y"}, {s, "x", "x"},
		}},
		{"a loss while a hold lasts counts as well", 30 * s, 10 * m, []step{
			{0, "a b c", "a b c"}, {s, "! a", "a b c"}, {20 * s, "! ", "a b c"}, {11 * s, "", "a b? c?"}, {20 * s, "x", "a? b? c? x"}, {s, "x y", "a? b? c? x y"},
		}},
		{"each loss counts for itself", 30 * s, 10 * m, []step{
			{0, "a b c", "a b c"}, {s, "", "a b c"}, {s, "a b c", "a b c"}, {20 * s, "a b", "a b"}, {20 * s, "", "a b"}, {31 * s, "x y", "x y"},
		}},
		{"another one at the address takes its place", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {31 * s, "x:at-a", "b? x"},
		}},
		{"maintenance ends it", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {31 * s, "", "a? b?"}, {s, "a:maintenance", "a:maintenance b?"},
		}},
		{"a registration has the time of a hold to pass", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {m, "", "a? b?"}, {s, "a:critical", "a? b?"}, {29 * s, "a:critical", "a? b?"}, {s, "a:critical", "a:critical b?"},
		}},
		{"a registration that passes in time", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {m, "a:critical", "a? b?"}, {20 * s, "a", "a b?"},
		}},
		{"a registration that vanishes again is forgotten", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {m, "a:critical", "a? b?"}, {s, "", "a? b?"}, {m, "", "a? b?"},
		}},
		{"critical for all of the hold", 30 * s, 10 * m, []step{
			{0, "a b", "a b"}, {s, "! a:critical", "a b"}, {30 * s, "a:critical", "a:critical b?"},
		}},
		{"without a hold", 0, m, []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {s, "a:critical", "a:critical b?"}, {58 * s, "", "b?"}, {s, "", ""},
		}},
		{"errors end nothing", 30 * s, m, []step{
			{0, "a b", "a b"}, {s, "", "a b"}, {31 * s, "", "a? b?"}, {s, "error", ""}, {time.Hour, "a", "a"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) { playGuard(t, &guard{emptyHold: tt.hold, keepAnswering: tt.keep}, tt.steps) })
	}
}

// Another source goes on with what the one before it kept.
func TestGuardInheritsWhatIsKept(t *testing.T) {
	at := guardBegin
	for _, tt := range []struct {
		name string
		keep time.Duration
		want string
	}{
		{"for its time", 10 * time.Minute, "a? b?"},
		{"not beyond it", 5 * time.Minute, "b?"},
		{"not at all", 0, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			known := parseSet("a b")
			known[0].Unlisted, known[1].Unlisted = at.Add(-6*time.Minute), at.Add(-time.Minute)
			g := &guard{emptyHold: 30 * time.Second, keepAnswering: tt.keep}
			g.inherit(known)
			got, _ := g.accept(at, nil)
			if formatSet(got) != tt.want {
				t.Errorf("got %q, want %q", formatSet(got), tt.want)
			}
			for _, i := range got {
				if !i.Unlisted.Equal(at.Add(-6*time.Minute)) && !i.Unlisted.Equal(at.Add(-time.Minute)) {
					t.Errorf("%s is unlisted since %v", i.ID, i.Unlisted)
				}
			}
		})
	}
}
