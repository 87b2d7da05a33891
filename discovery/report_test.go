package discovery

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/observe/events"
	"sluice/test/verify"
)

// A service in several data centres may have a set, and an error of one of them. The set is known,
// also if it is the first one.
func TestSetWithAnErrorIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		report := b.start("star")
		b.expect(time.Second)
		report(Report{Set: instances("a"), Known: true, Err: errors.New("dc2 is away")})
		b.expect(time.Second, call{time.Second, "star", "a"})
		s := b.status()
		verify.That(t, s.State == WatchStale && s.Since.Equal(b.begin.Add(time.Second)), "status %+v", s)
		report.set(instances("a"))
		report(Report{Set: instances("a", "b"), Known: true, Endpoint: "http://c", Index: 7, Err: errors.New("dc1 is away")})
		b.expect(2*time.Second, call{1100 * ms, "star", "a b"})
		s = b.status()
		verify.That(t, s.State == WatchStale && s.LastError == "dc1 is away" && s.Endpoint == "http://c" && s.Index == 0, "status %+v", s)
	})
}

// A registry that was away, and then refuses the query, needs somebody who changes something: that
// is told too, once.
func TestRefusalAfterAnOutageIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.options.Events = events.New()
		report := b.startWith("a")
		refused := Report{Err: RefusedError{errors.New("403 ACL not found")}}
		for range 2 {
			report.fail("no leader")
			report(refused)
			report(refused)
		}
		report.set(instances("a"))
		var told []string
		for _, e := range b.options.Events.All() {
			told = append(told, string(e.Kind))
		}
		verify.Equal(t, strings.Join(told, " "), "service.failing service.refused service.readable", "events")
		verify.Equal(t, strings.Count(b.log.String(), "watch failing"), 2, "failures in the log %s", &b.log)
		verify.That(t, strings.Contains(b.log.String(), "ACL not found"), "the log does not say what is refused: %s", &b.log)
	})
}

// A source gets what is in use of its own selection, or else what is saved of it, and the zero
// Report changes nothing.
func TestSourceGetsTheStateBefore(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.fallback = func(string, string) ([]Instance, time.Time, bool) { return instances("saved"), time.Now(), true }
		begin := func(want string) reports {
			t.Helper()
			s := newScripted()
			b.Watch("star", s)
			before := <-s.before
			verify.That(t, before.Known == (want != "") && describe(before.Set) == want, "before %+v, want %q", before, want)
			return <-s.reports
		}
		report := begin("saved")
		report(Report{})
		b.expect(0) // the saved set is not in use yet
		report(Report{Set: instances("a"), Known: true})
		report(Report{})
		b.expect(0, call{0, "star", "a"})
		begin("a")
		b.Watch("star", &Static{})
		b.expect(0, call{0, "star", ""})
		begin("")
	})
}

// Every text of an instance has a bound, also of a field that is added later.
func TestEveryTextOfAnInstanceIsBounded(t *testing.T) {
	whole := Instance{Tags: []string{"a"}, Meta: map[string]string{"a": "b"}}
	verify.Equal(t, whole.Excess(), "", "a usual instance")
	for field := range reflect.TypeFor[Instance]().Fields() {
		long := whole
		value := reflect.ValueOf(&long).Elem().FieldByIndex(field.Index)
		switch value.Interface().(type) {
		case string:
			value.SetString(strings.Repeat("é", maxName/2))
			verify.Equal(t, long.Excess(), "", "%s of %d octets", field.Name, maxName)
			value.SetString(value.String() + "x")
		case []string:
			value.Set(reflect.ValueOf(make([]string, maxTexts/perText+1)))
		case map[string]string:
			value.Set(reflect.ValueOf(map[string]string{"a": strings.Repeat("x", maxTexts)}))
		default:
			continue
		}
		verify.That(t, long.Excess() != "", "%s has no bound", field.Name)
	}
}

// A service owner registers what is too long beside instances that are not: the others stay,
// nothing is cut, and the log has one line for as long as it lasts.
func TestAnInstanceWithTooLongTextsIsNotUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		report := b.startWith("a", "b")
		w := NewWatcher(Guard{}, WatchState{}, report)
		set := instances("a", "b")
		for n := range 12 {
			long := instances(strings.Repeat("e", 200_000))[0]
			long.Port = 81 + n
			set = append(set, long)
		}
		invalid := []Invalid{{Key: "z", Reason: "it has port 0"}}
		for range 3 {
			w.Accept(Report{Set: set, Invalid: invalid}, Memory{})
			b.expect(time.Second)
		}
		s := b.status()
		verify.That(t, s.Instances == 2 && len(s.Invalid) == 13, "%d instances, %d invalid", s.Instances, len(s.Invalid))
		first, last := s.Invalid[0], s.Invalid[12]
		verify.That(t, len(first.Key) <= shownID && first.Reason == "its id has 200000 octets, the limit is 512" && last == invalid[0], "%+v, %+v", first, last)
		verify.Equal(t, len(invalid), 1, "the report's own list")
		verify.Equal(t, strings.Count(b.log.String(), "too long texts"), 1, "lines in the log")
		verify.That(t, b.log.Len() < 10_000, "%d octets of log", b.log.Len())
		w.Accept(Report{Set: instances("a", "b")}, Memory{})
		verify.Equal(t, len(b.status().Invalid), 0, "invalid at the end")
	})
}
