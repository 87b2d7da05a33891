package discovery

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/verify"
)

// parseSet parses a set such as "a b:critical c:maintenance d:unchecked e:moved f:at-a g:warning*2
// h*0 i:silent"; after a star is the weight. What is silent is unchecked, and has its first result
// within 5 s.
func parseSet(words string) []Instance {
	var set []Instance
	for n, word := range strings.Fields(words) {
		word, weight, weighted := strings.Cut(word, "*")
		id, status, _ := strings.Cut(word, ":")
		i := Instance{Service: "star", ID: id, Node: "n", Address: "10.0.0.1", Port: 1000 + int(id[0]), Weight: 1}
		switch status {
		case "warning":
			i.Status = StatusWarning
		case "critical", "unchecked":
			i.Status, i.Weight, i.Unchecked = StatusCritical, 0, status == "unchecked"
		case "silent":
			i.Status, i.Unchecked, i.FirstResult, i.Weight = StatusCritical, true, 5*time.Second, 0
		case "maintenance":
			i.Status, i.Weight = StatusMaintenance, 0
		case "moved":
			i.Port = 81 + n
		case "at-a":
			i.Port = 1000 + 'a'
		}
		if weighted {
			i.Weight, _ = strconv.Atoi(weight)
		}
		set = append(set, i)
	}
	return set
}

// formatSet is the inverse of parseSet, with "?" after instances on probation.
func formatSet(set []Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.Status != StatusPassing {
			word += ":" + i.Status.String()
		}
		if !i.Probation.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func TestGuard(t *testing.T) {
	const s, m = time.Second, time.Minute
	type step struct {
		after  time.Duration // since the step before
		answer string        // "!" at the start: the index went backwards; "error": a query failed
		want   string        // what is reported
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"one of several leaves at once", []step{
			{0, "a b c", "a b c"}, {s, "a c", "a c"}, {11 * s, "a", "a"},
		}},
		{"the last one goes on probation, for its time", []step{
			{0, "a", "a"}, {s, "", "a?"}, {9 * m, "", "a?"}, {59 * s, "", "a?"}, {s, "", ""}, {s, "", ""},
		}},
		{"all listed as critical is the truth", []step{
			{0, "a b", "a b"}, {s, "a:critical b:critical", "a:critical b:critical"},
		}},
		{"maintenance of all is the truth, also after an error", []step{
			{0, "a b", "a b"}, {s, "error", ""}, {s, "a:maintenance b:maintenance", "a:maintenance b:maintenance"},
		}},
		{"a critical one does not stand in for one that is missing", []step{
			{0, "a b", "a b"}, {s, "b:critical", "a? b:critical"},
		}},
		{"what was out of service does not go on probation", []step{
			{0, "a b:critical", "a b:critical"}, {s, "", "a?"},
		}},
		{"those that left one by one come back when the last one leaves", []step{
			{0, "a b c d", "a b c d"}, {s, "b c d", "b c d"}, {9 * s, "b d", "b d"}, {s, "d", "d"}, {s, "", "b? c? d?"},
		}},
		{"what left in a roll-out does not come back", []step{
			{0, "a b", "a b"}, {s, "a b c:unchecked", "a b c:critical"}, {s, "a b c", "a b c"}, {s, "b c", "b c"},
			{s, "b c d", "b c d"}, {s, "c d", "c d"}, {s, "", "c? d?"}, {s, "x y", "x y"},
		}},
		{"what was replaced in one answer does not come back", []step{
			{0, "a", "a"}, {s, "b", "b"}, {s, "", "b?"}, {s, "c", "c"},
		}},
		{"nor what its replacement has preceded", []step{
			{0, "a b", "a b"}, {s, "a b c d", "a b c d"}, {9 * s, "b c d", "b c d"}, {s, "c d", "c d"}, {s, "", "c? d?"},
		}},
		{"an instance replaces one only", []step{
			{0, "a b c", "a b c"}, {s, "a b c d", "a b c d"}, {s, "b c d", "b c d"}, {s, "c d", "c d"}, {s, "d", "d"}, {s, "", "b? c? d?"},
		}},
		{"also if it has replaced one that left before", []step{
			{0, "a b c", "a b c"}, {s, "b c", "b c"}, {s, "b c d", "b c d"}, {s, "c d", "c d"}, {s, "", "b? c? d?"},
		}},
		{"fewer than have left replace none of them", []step{
			{0, "a b c", "a b c"}, {s, "c d", "c d"}, {s, "", "a? b? c? d?"},
		}},
		{"an instance that came long ago replaces none", []step{
			{0, "a b", "a b"}, {s, "a b c", "a b c"}, {11 * s, "b c", "b c"}, {s, "", "a? b? c?"},
		}},
		{"the first instances replace none", []step{
			{0, "", ""}, {s, "a b", "a b"}, {s, "b", "b"}, {s, "", "a? b?"},
		}},
		{"nor do those that return from probation", []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {s, "a", "a b?"}, {s, "a b", "a b"}, {s, "b", "b"}, {s, "", "a? b?"},
		}},
		{"what returns is nothing new", []step{
			{0, "a b c", "a b c"}, {s, "c", "c"}, {s, "a c", "a c"}, {s, "", "a? b? c?"},
		}},
		{"one that comes and goes counts once", []step{
			{0, "a b", "a b"}, {s, "b", "b"}, {s, "a b", "a b"}, {s, "b", "b"}, {s, "a b", "a b"}, {s, "", "a? b?"}, {s, "x", "a? b? x"}, {s, "x y", "x y"},
		}},
		{"one that came back critical has not gone missing", []step{
			{0, "a b", "a b"}, {s, "b", "b"}, {s, "a:critical b", "a:critical b"}, {s, "a:critical", "a:critical b?"},
		}},
		{"an agent that is swept while its instances register again", []step{
			{0, "a b c", "a b c"}, {s, "a:unchecked b c", "a:critical b c"}, {s, "a:unchecked c", "a:critical c"}, {s, "a:unchecked", "a? b? c?"},
			{s, "a:unchecked b:unchecked", "a? b? c?"}, {s, "a b:unchecked", "a b? c?"}, {s, "a b", "a b c?"}, {s, "a b c", "a b c"},
		}},
		{"a registration whose check has failed ends probation", []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {s, "a:unchecked", "a? b?"}, {s, "a:critical", "a:critical b?"}, {s, "a", "a b?"},
		}},
		{"a check without a result has failed when one is due", []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {s, "a:silent", "a? b?"}, {4 * s, "a:silent b:silent", "a? b?"},
			{s, "a:silent b:silent", "a:critical b?"}, {s, "a:silent", "a:critical b?"}, {s, "a:silent b:silent", "a:critical b?"},
			{5 * s, "a:silent b:silent", "a:critical b:critical"}, {s, "a b:silent", "a b:critical"},
		}},
		{"also one that is all that is left", []step{
			{0, "a", "a"}, {s, "a:silent", "a?"}, {4 * s, "error", ""}, {s, "a:silent", "a:critical"},
		}},
		{"maintenance ends probation", []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {s, "a:maintenance", "a:maintenance b?"},
		}},
		{"another one in service at the address ends probation", []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {s, "x:unchecked", "a? b? x:critical"}, {s, "x:at-a", "b? x"},
		}},
		{"all go when as many are in service as before", []step{
			{0, "a b c", "a b c"}, {s, "", "a? b? c?"}, {s, "x", "a? b? c? x"}, {s, "x y:critical z", "a? b? c? x y:critical z"}, {s, "x y z", "x y z"},
			{s, "x", "x"},
		}},
		{"each loss counts for itself", []step{
			{0, "a b c", "a b c"}, {s, "", "a? b? c?"}, {s, "a b c", "a b c"}, {20 * s, "a b", "a b"}, {20 * s, "", "a? b?"}, {31 * s, "x y", "x y"},
		}},
		{"an index that went backwards puts all that miss on probation", []step{
			{0, "a b c", "a b c"}, {s, "! a:unchecked b", "a? b c?"}, {s, "a:unchecked b", "a? b c?"}, {s, "a b", "a b c?"},
			{9 * m, "a b", "a b c?"}, {m, "a b", "a b"},
		}},
		{"and what was out of service stays so, until it is listed in any status", []step{
			{0, "a b:critical c:maintenance d:critical", "a b:critical c:maintenance d:critical"}, {s, "!", "a? b:critical c:maintenance d:critical"},
			{s, "a", "a b:critical c:maintenance d:critical"}, {s, "a x y z", "a b:critical c:maintenance d:critical x y z"},
			{s, "a b:unchecked c x y z", "a b:critical c d:critical x y z"}, {s, "a x y z", "a d:critical x y z"},
			{9*m + 55*s, "a", "a d:critical"}, {s, "a", "a"},
		}},
		{"also alone, while another one is in service elsewhere", []step{
			{0, "b:critical", "b:critical"}, {s, "!", "b:critical"}, {s, "x", "b:critical x"}, {s, "", "b:critical x?"}, {s, "y", "b:critical y"}, {s, "y b", "b y"},
			{s, "y", "y"},
		}},
		{"but not if another one is in service at its address", []step{
			{0, "a:critical", "a:critical"}, {s, "!", "a:critical"}, {s, "x:at-a", "x"},
		}},
		{"what is gone from an earlier loss is not waited for", []step{
			{0, "a b c", "a b c"}, {s, "", "a? b? c?"}, {s, "x", "a? b? c? x"}, {s, "", "a? b? c? x?"}, {s, "u v", "a? b? c? u v x?"}, {s, "u v w", "u v w"},
		}},
		{"nor is what left in a moment of trouble", []step{
			{0, "a b c", "a b c"}, {s, "error", ""}, {s, "c x", "a? b? c x"}, {s, "x y", "a? b? c? x y"}, {s, "y", "a? b? c? x? y"}, {s, "", "a? b? c? x? y?"},
			{s, "u v w", "u v w"},
		}},
		{"a second loss while the first lasts", []step{
			{0, "a b c", "a b c"}, {s, "! a", "a b? c?"}, {20 * s, "", "a? b? c?"}, {s, "x y", "a? b? c? x y"}, {s, "x y z", "x y z"},
		}},
		{"what has been replaced by the first answer after an outage is gone", []step{
			{0, "a b c", "a b c"}, {s, "! b c d e", "b c d e"}, {s, "! c d", "b? c d e?"}, {s, "c d x y", "c d x y"},
		}},
		{"after a failure what is missing is on probation for a moment", []step{
			{0, "a b c", "a b c"}, {s, "error", ""}, {s, "b c", "a? b c"}, {s, "a:unchecked b c", "a? b c"}, {7 * s, "b c", "a? b c"}, {s, "b c", "b c"},
		}},
		{"after a failure the first that are missing are part of a larger loss", []step{
			{0, "a b c", "a b c"}, {s, "error", ""}, {s, "c", "a? b? c"}, {s, "", "a? b? c?"}, {20 * s, "", "a? b? c?"}, {s, "a b", "a b c?"},
		}},
		{"long after a failure one of several leaves at once", []step{
			{0, "a b c", "a b c"}, {s, "error", ""}, {s, "a b c", "a b c"}, {9 * s, "a b", "a b"},
		}},
		{"time stands while the registry is away", []step{
			{0, "a b", "a b"}, {s, "", "a? b?"}, {5 * m, "", "a? b?"}, {s, "error", ""}, {time.Hour, "error", ""}, {s, "", "a? b?"},
			{4*m + 59*s, "", "a? b?"}, {s, "", ""},
		}},
		{"an instance at another address is another one", []step{
			{0, "a b", "a b"}, {s, "a:moved", "a"},
		}},
		{"five stop and five start: the last that stopped are there until all have started", []step{
			{0, "a b c d e", "a b c d e"}, {s, "b c d e", "b c d e"}, {s, "c d e", "c d e"}, {s, "d e", "d e"}, {s, "e", "e"}, {s, "", "a? b? c? d? e?"},
			{5 * s, "v:unchecked", "a? b? c? d? e? v:critical"}, {2 * s, "v", "a? b? c? d? e? v"}, {2 * s, "v w x y z", "v w x y z"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, handedOver := range []bool{false, true} { // after each answer, to another Guard
				g := &Guard{Probation: 10 * time.Minute}
				now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
				for n, step := range tt.steps {
					now = now.Add(step.after)
					if step.answer == "error" {
						g.Failed(now)
						continue
					}
					answer, forgot := strings.CutPrefix(step.answer, "!")
					got := g.Accept(now, Normalize(parseSet(answer)), forgot)
					verify.Require(t, formatSet(got) == step.want, "handed over %v, step %d, answer %q: got %q, want %q",
						handedOver, n, step.answer, formatSet(got), step.want)
					verify.Require(t, slices.IsSortedFunc(got, compareKeys), "step %d: %q is not sorted", n, formatSet(got))
					expiry, ok := g.Expiry()
					verify.Require(t, ok == (len(g.probation) > 0) && (!ok || expiry.After(now)),
						"step %d: %d on probation, expiry %v, %v", n, len(g.probation), expiry, ok)
					if handedOver {
						memory := g.Memory()
						g = &Guard{Probation: 10 * time.Minute}
						g.Restore(got, memory)
					}
				}
			}
		})
	}
}

// Which instance is older does not change when the registry loses all of them: it counts from the
// beginning again, and they return in another order.
func TestInstancesAreAsOldAsBeforeALoss(t *testing.T) {
	type step struct{ answer, want string } // as in TestGuard, with the tag and the age: "a:v1@5"
	for _, steps := range [][]step{
		{ // Consul is wiped: b returns first, then c comes, then a returns
			{"a:v1@100 b:v2@150 e:v2@200", "a:v1@100 b:v2@150 e:v2@200"}, {"!", "a:v1@100 b:v2@150 e:v2@200"},
			{"b:v2@15", "a:v1@100 b:v2@150 e:v2@200"}, {"b:v2@15 c:v3@20", "a:v1@100 b:v2@150 c:v3@220 e:v2@200"},
			{"a:v1@25 b:v2@15 c:v3@20", "a:v1@100 b:v2@150 c:v3@220"},
			{"a:v4@30 b:v2@40 c:v3@20", "a:v4@230 b:v2@150 c:v3@220"}, {"a:v4@50 b:v2@40", "a:v4@250 b:v2@150"}, // with other tags, and with the same
			{"!", "a:v4@250 b:v2@150"}, {"d:v5@3", "a:v4@250 b:v2@150 d:v5@253"}, // and once more
		},
		{{"a:v1@100 b:v2@200", "a:v1@100 b:v2@200"}, {"!a:v1@7 b:v2@5", "a:v1@100 b:v2@200"}},                               // seen when all have returned
		{{"a:v1@100 b:v2@200", "a:v1@100 b:v2@200"}, {"", "a:v1@100 b:v2@200"}, {"a:v1@310 b:v2@300", "a:v1@100 b:v2@200"}}, // their agent is restarted empty
		{{"a:v1@100 b:v2@200", "a:v1@100 b:v2@200"}, {"a:v1@300 b:v2@200", "a:v1@300 b:v2@200"}},                            // no loss
	} {
		g := &Guard{Probation: 10 * time.Minute}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for n, step := range steps {
			now = now.Add(time.Second)
			words, forgot := strings.CutPrefix(step.answer, "!")
			var set []Instance
			for _, word := range strings.Fields(words) {
				word, age, _ := strings.Cut(word, "@")
				id, tag, _ := strings.Cut(word, ":")
				i := parseSet(id)[0]
				i.Tags = []string{tag}
				i.Registered, _ = strconv.ParseUint(age, 10, 64)
				set = append(set, i)
			}
			set = g.Accept(now, set, forgot)
			var got []string
			for _, i := range set {
				got = append(got, i.ID+":"+i.Tags[0]+"@"+strconv.FormatUint(i.Registered, 10))
			}
			verify.Equal(t, strings.Join(got, " "), step.want, "step %d of %v", n, steps)
			memory := g.Memory()
			g = &Guard{Probation: 10 * time.Minute}
			g.Restore(set, memory)
		}
	}
}

func TestGuardWithoutProbation(t *testing.T) {
	g := &Guard{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g.Accept(now, parseSet("a b"), false)
	verify.Equal(t, formatSet(g.Accept(now, parseSet("a"), true)), "a", "after a loss of state")
	verify.Equal(t, formatSet(g.Accept(now, nil, false)), "", "after a loss of all")
}

// Removals have to be confirmed.
func TestAbsentAndLoses(t *testing.T) {
	g := &Guard{Probation: time.Minute}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g.Accept(at, parseSet("a b c:critical"), false)
	for _, tt := range []struct {
		answer, absent string
		loses          bool
	}{
		{"a b c", "", false},
		{"a b", "c:critical", false},
		{"a:critical b:critical c:critical", "", false},
		{"b", "a c:critical", false},
		{"b:unchecked", "a c:critical", true},
		{"a:unchecked b:unchecked c", "", false},
		{"a:unchecked b:critical c:critical", "", true},
		{"", "a b c:critical", true},
	} {
		set := parseSet(tt.answer)
		verify.Equal(t, formatSet(g.Absent(set)), tt.absent, "%q: absent", tt.answer)
		verify.Equal(t, g.loses(at, set, false), tt.loses, "%q: loses", tt.answer)
	}
	verify.That(t, g.loses(at, parseSet("a:unchecked b c"), true) && g.loses(at, parseSet("a b"), true) && !g.loses(at, parseSet("a b c:unchecked"), true),
		"want a loss, if the registry has lost its state, of instances that it does not list")
}

// An operator moved a tag: the instances exist, but are no longer selected.
func TestDeselectedInstancesAreNotLost(t *testing.T) {
	g := &Guard{Probation: time.Minute}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g.Accept(now, parseSet("a b c"), false)
	g.Accept(now.Add(time.Second), parseSet("b c"), false)
	others, lost := g.Remembered(parseSet("c"))
	verify.That(t, len(others) == 2 && !lost, "beside c: %q, lost %t", formatSet(others), lost)
	g.Deselect(parseSet("a b"))
	verify.Equal(t, formatSet(g.Accept(now.Add(2*time.Second), nil, false)), "c?", "only the lost instances")

	// They are registered again, for others, after all were lost. Then as many in service as were
	// lost beside them are enough.
	g = &Guard{Probation: time.Minute}
	for n, answer := range []string{"a b", "", "c", ""} {
		g.Accept(now.Add(time.Duration(n)*time.Second), parseSet(answer), false)
	}
	others, lost = g.Remembered(parseSet("a"))
	verify.That(t, len(others) == 2 && lost, "beside a: %q, lost %t", formatSet(others), lost)
	g.Deselect(parseSet("a b"))
	verify.Equal(t, formatSet(g.Accept(now.Add(5*time.Second), nil, false)), "c?", "the set")
	verify.Equal(t, formatSet(g.Accept(now.Add(6*time.Second), parseSet("e"), false)), "e", "the set")
}

// The wait for an answer ends with the brief probation of missing instances.
func TestExpiryIsTheEndOfSettleTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, passingOnly := range []bool{false, true} {
		g := &Guard{Probation: time.Minute, PassingOnly: passingOnly}
		g.Accept(now, parseSet("a b"), false)
		g.Failed(now.Add(time.Second))
		got := formatSet(g.Accept(now.Add(2*time.Second), parseSet("b"), false))
		end, ok := g.Expiry()
		if passingOnly { // a may have failed a check
			verify.That(t, got == "b" && !ok, "passing only: got %q, expiry %v, %v", got, end, ok)
			continue
		}
		verify.That(t, got == "a? b" && ok && end.Equal(now.Add(11*time.Second)), "got %q, expiry %v, %v", got, end, ok)
	}
}

// A source continues the probation of the source before it.
func TestRestoredKeepsProbation(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	known := parseSet("a b c")
	known[0].Probation = now.Add(-time.Hour)
	g := &Guard{Probation: time.Minute}
	g.Restore(known, GuardMemory{})
	got := g.Accept(now, parseSet("b"), false)
	verify.Require(t, formatSet(got) == "a? b", "got %q", formatSet(got))
	verify.That(t, got[0].Probation.Equal(now.Add(-time.Hour)), "since %v", got[0].Probation)
	got = g.Accept(now.Add(time.Minute), parseSet("b"), false)
	verify.Equal(t, formatSet(got), "b", "after the time on probation")
}

// A process continues what another one has noted by a clock that was set back since.
func TestRestoredAfterTheClockWasSetBack(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	later := now.Add(2 * time.Hour)
	known := parseSet("a b c")
	known[0].Probation = later
	g := &Guard{Probation: time.Minute}
	g.Restore(known, GuardMemory{AsOf: later, Settled: later, Departed: []Departure{{parseSet("d")[0], later}}})
	for _, step := range []struct {
		after     time.Duration
		set, want string
		why       string
	}{
		{0, "b c", "a? b c", "at first"},
		{30 * time.Second, "b c", "a? b c", "within the time on probation"},
		{40 * time.Second, "b", "a? b", "long after the last failure"},
		{time.Minute, "b", "b", "after the time on probation"},
		{2 * time.Minute, "", "b?", "long after the others have departed"},
	} {
		verify.Equal(t, formatSet(g.Accept(now.Add(step.after), parseSet(step.set), false)), step.want, "%s", step.why)
	}
}

// Each run of a source continues where the run before has ended, also after a failure.
func TestWatcherContinuesFromTheRunBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := WatchState{Known: true, Set: instances("a", "b"), Memory: []Memory{{Index: 7, Filtered: true}}}
		run := func(f func(w *Watcher), want string) {
			t.Helper()
			time.Sleep(40 * time.Second)
			f(NewWatcher(Guard{Probation: time.Minute}, state, func(r Report) {
				if state.Memory = r.Memory; r.Known {
					state.Set = r.Set
				}
			}))
			verify.Equal(t, formatSet(state.Set), want, "in use")
		}
		answer := func(set []Instance) func(*Watcher) {
			return func(w *Watcher) {
				m := w.Memory()
				verify.That(t, m.Index == 7 && m.Filtered, "the memory is %+v", m)
				w.Accept(Report{Set: set}, m)
			}
		}
		run(answer(nil), "a? b?")
		run(answer(nil), "a? b?")
		run(func(w *Watcher) { w.Failed(errors.New("away")) }, "a? b?")
		run(answer(nil), "a? b?") // time stood while it failed
		run(answer(nil), "")
	})
}

// The first failure of a service that nobody knows leaves no memory.
func TestWatcherWithoutAnswerHasNoMemory(t *testing.T) {
	var last Report
	w := NewWatcher(Guard{}, WatchState{Memory: []Memory{{Index: 7}}}, func(r Report) { last = r })
	w.Failed(errors.New("away"))
	verify.That(t, last.Err != nil && last.Memory == nil && w.Memory().Index == 0, "reported %+v", last)
}
