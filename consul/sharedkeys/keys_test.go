package sharedkeys

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/test/verify"
)

// unconnected are keys without Consul.
type unconnected struct {
	*Keys[string]
	t *testing.T
}

func newUnconnected(t *testing.T) *unconnected {
	u := &unconnected{t: t}
	u.Keys = New(Options[string]{
		Prefix: "p", Wait: func() time.Duration { return 0 }, Decode: decode, Log: zerolog.Nop(),
	})
	return u
}

func decode(_ string, text []byte) (value string, err error) {
	if err := json.Unmarshal(text, &value); err != nil {
		return "", err
	}
	if value == "" || len(value) > 1000 {
		return "", errors.New("not a value: " + value)
	}
	return value, nil
}

// pair is a key with its own name as the value.
func pair(key string, index uint64) api.KVPair {
	text, _ := json.Marshal(key + "!")
	return api.KVPair{Key: "p/" + key, Value: text, ModifyIndex: index}
}

func mark(index uint64) api.KVPair { return api.KVPair{Key: "p/" + markKey, ModifyIndex: index} }

// counting returns the keys that have a value here.
func counting(all map[string]Entry[string]) (keys []string) {
	for key, e := range all {
		if !e.Absent {
			keys = append(keys, key+"="+e.Value)
		}
	}
	slices.Sort(keys)
	return keys
}

func (u *unconnected) expect(what string, want ...string) {
	u.t.Helper()
	verify.Slices(u.t, counting(u.All()), want, "%s: count", what)
}

func (u *unconnected) expectPending(what string, want int) {
	u.t.Helper()
	got := 0
	for _, e := range u.All() {
		if e.Pending {
			got++
		}
	}
	verify.Equal(u.t, got, want, "%s: changes are pending", what)
}

// accept does what the writer does when Consul has accepted the latest change of a key.
func (u *unconnected) accept(key string, seen uint64) {
	u.update(func() {
		u.changes[key].accepted, u.changes[key].seen = true, seen
		u.forgetConfirmedLocked(key)
	})
}

// A key that an answer lacks was deleted, whatever the index is: it falls when Consul forgets a
// deletion, some 15 minutes later, and when Consul is restored from a snapshot.
func TestAFallingIndexRestoresNothing(t *testing.T) {
	for _, index := range []uint64{1001, 1000, 7} {
		u := newUnconnected(t)
		u.setKnown(1000, []api.KVPair{mark(3), pair("a", 900), pair("b", 6)}, false)
		u.expect("before", "a=a!", "b=b!")
		u.setKnown(index, []api.KVPair{mark(3), pair("b", 6)}, false)
		u.expect("after", "b=b!")
		u.expectPending("after", 0)
	}
}

// A replica that was away does not write a value again that others have ended meanwhile, also if
// Consul had accepted it and no answer had shown it before.
func TestAReplicaThatWasAwayRestoresNothing(t *testing.T) {
	u := newUnconnected(t)
	u.setKnown(1000, []api.KVPair{mark(3), pair("a", 900)}, false)
	u.Put("b", "b!", nil)
	u.accept("b", 1001)
	u.expect("before", "a=a!", "b=b!")
	u.setKnown(500, []api.KVPair{mark(3), pair("a", 900)}, false) // to a query from before the write
	u.expect("an earlier answer", "a=a!", "b=b!")
	_, err := u.begin(t.Context())
	verify.NoError(t, err)
	u.setKnown(3, []api.KVPair{mark(3)}, false)
	u.expect("back again")
	u.expectPending("back again", 0)
}

// If Consul begins anew, all values stay and are written again, also if its index is higher by now;
// but not over those that another replica has written by then.
func TestConsulBeginsAnew(t *testing.T) {
	for _, index := range []uint64{5, 2000} {
		u := newUnconnected(t)
		u.setKnown(1000, []api.KVPair{mark(3), pair("a", 900), pair("b", 901), pair("c", 902)}, false)
		u.Delete("c", nil)
		u.Put("d", "d!", nil)
		u.accept("d", 1001)
		u.setKnown(index, nil, false)
		u.expect("Consul has nothing", "a=a!", "b=b!", "d=d!")
		u.expectPending("Consul has nothing", 4)
		theirs := pair("b", index+1)
		theirs.Value = []byte(`"theirs"`)
		u.setKnown(index+1, []api.KVPair{theirs}, false)
		c := u.changes["b"]
		verify.That(t, c != nil && c.restores && c.void("theirs", index+1) && !c.void("", 0), "the change of b: %+v", c)
		u.accept("b", index+1)
		u.expect("another replica was faster", "a=a!", "b=theirs", "d=d!")
		u.setKnown(index+2, []api.KVPair{mark(index + 2), theirs}, false)
		u.expect("the mark is back", "a=a!", "b=theirs", "d=d!")
	}
}

// Consul may lose its state again before it has the mark: what it had then is written once more.
func TestConsulBeginsAnewTwice(t *testing.T) {
	u := newUnconnected(t)
	u.setKnown(1000, []api.KVPair{mark(3), pair("a", 900), pair("b", 901)}, false)
	u.setKnown(5, nil, false)
	u.accept("a", 6)
	u.setKnown(6, []api.KVPair{pair("a", 6)}, false)
	u.expectPending("Consul has one value again", 1)
	u.setKnown(5, nil, false)
	u.expect("Consul has nothing again", "a=a!", "b=b!")
	u.expectPending("Consul has nothing again", 2)
	u.accept("a", 7)
	u.accept("b", 8)
	u.setKnown(9, []api.KVPair{mark(9), pair("a", 7), pair("b", 8)}, false)
	u.setKnown(10, []api.KVPair{mark(9), pair("a", 7)}, false)
	u.expect("b was deleted", "a=a!")
}

// The state of another process counts like an answer of Consul.
func TestRestoredValues(t *testing.T) {
	u := newUnconnected(t)
	ended, pending := "old", "new"
	u.Restore(map[string]string{"a": "a!", "b": "b!", "e": ended}, map[string]*string{"c": &pending, "e": nil}, Versions{})
	u.expect("at the start", "a=a!", "b=b!", "c=new")
	u.setKnown(7, nil, false)
	u.expect("Consul has lost its state", "a=a!", "b=b!", "c=new")
	u.expectPending("Consul has lost its state", 4)
	u.Restore(map[string]string{"a": "a!", "b": "b!"}, nil, Versions{})
	u.setKnown(7, []api.KVPair{mark(3), pair("b", 5)}, false)
	u.expect("others have ended a", "b=b!")
	u.expectPending("others have ended a", 0)
}

// An accepted change counts until an answer shows it or a later one.
func TestAnEarlierAnswerUndoesNothing(t *testing.T) {
	u := newUnconnected(t)
	u.Put("a", "a!", nil)
	u.accept("a", 11)
	u.setKnown(10, []api.KVPair{mark(3)}, false)
	u.expect("from before the write", "a=a!")
	u.setKnown(11, []api.KVPair{mark(3), pair("a", 11)}, false)
	u.expect("with it", "a=a!")
	verify.That(t, len(u.changes) <= 0, "changes %v", u.changes)
	u.Delete("a", nil)
	u.expect("deleted here")
	u.accept("a", 12)
	u.setKnown(11, []api.KVPair{mark(3), pair("a", 11)}, false)
	u.expect("from before the deletion")
	u.setKnown(12, []api.KVPair{mark(3)}, false)
	u.expect("with it")
	u.setKnown(13, []api.KVPair{mark(3), pair("a", 13)}, false)
	u.expect("another replica", "a=a!")
	u.Put("b", "b!", nil) // which another replica ends before an answer has it
	u.accept("b", 14)
	u.setKnown(15, []api.KVPair{mark(3), pair("a", 13)}, false)
	u.expect("ended at once", "a=a!")
}

// A value that cannot be used changes nothing, and a condition is asked as late as possible.
func TestBadValuesAndConditions(t *testing.T) {
	u := newUnconnected(t)
	bad := pair("a", 12)
	bad.Value = []byte(`"`)
	u.setKnown(12, []api.KVPair{mark(3), bad}, false)
	u.expect("bad from the start")
	u.setKnown(13, []api.KVPair{mark(3), pair("a", 13)}, false)
	bad.ModifyIndex = 14
	u.setKnown(14, []api.KVPair{mark(3), bad}, false)
	u.expect("bad later", "a=a!")
	all := u.Invalid()
	verify.Require(t, len(all) == 1, "invalid %+v", all)
	verify.That(t, all[0].Key == "p/a" && all[0].InUse && all[0].Reason != "", "invalid %+v", all)
	bad.Value, bad.ModifyIndex = []byte(`"`+strings.Repeat("long", 1<<16)+`"`), 15
	u.setKnown(15, []api.KVPair{mark(3), bad}, false)
	reason := u.Invalid()[0].Reason
	verify.That(t, len(reason) <= maxReason && strings.Contains(reason, "value: longlong"), "a reason of %d bytes: %.500s", len(reason), reason)
	u.setKnown(15, []api.KVPair{mark(3), pair("a", 15)}, false)
	verify.Equal(t, len(u.Invalid()), 0, "invalid")
	only := func(at uint64) Condition[string] {
		return func(_ string, index uint64) bool { return index != at }
	}
	u.Delete("a", only(14))
	u.expect("the key has changed since", "a=a!")
	u.Delete("a", only(15))
	u.expect("deleted")
	u.Put("a", "new", nil)
	u.Delete("a", only(1)) // the pending value must not be written
	u.expect("deleted")
	verify.That(t, u.Of("a").Conditional && u.Of("a").Pending, "%+v", u.Of("a"))
}

// Without other replicas a change counts for ever, and a deletion at once.
func TestWithoutAPrefix(t *testing.T) {
	k := New(Options[string]{})
	k.Resume()
	defer k.Pause()
	k.Put("a", "a!", nil)
	k.Put("b", "b!", nil)
	k.Delete("a", nil)
	got := counting(k.All())
	verify.That(t, slices.Equal(got, []string{"b=b!"}) && !k.Shared(), "%q", got)
	verify.Succeeds(t, k.Await(t.Context(), "b", 0))
}
