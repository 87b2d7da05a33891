package discovery

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

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
