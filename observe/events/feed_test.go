package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"sluice/test/verify"
)

func texts(list []Event) string {
	var all []string
	for _, e := range list {
		all = append(all, e.Text)
	}
	return strings.Join(all, "; ")
}

func kept(f *Feed, filter Filter, after ID) []Event {
	list, _ := f.Read(filter, after)
	return list
}

// A service that flaps, or documents that are refused all the time, drive out events of their own
// only. A reader learns how many it has missed of them, and where.
func TestWhoAddsManyEventsDrivesOutItsOwn(t *testing.T) {
	for what, flood := range map[string]Event{
		"a service":           {Kind: KindUnhealthy, Service: "a", Text: "a"},
		"kinds of no service": {Kind: KindRejected, Text: "a"},
	} {
		t.Run(what, func(t *testing.T) {
			f := New()
			for i := range share {
				f.Add(Event{Kind: KindJoined, Service: "b", Text: fmt.Sprint("b", i)})
			}
			f.Add(Event{Kind: KindAgentFails, Text: "agent"})
			for range 3 * Capacity {
				f.Add(flood)
			}
			f.Add(Event{Kind: KindLeft, Service: "b", Text: "last"})
			list := kept(f, Filter{}, ID{})
			verify.Equal(t, len(list), Capacity, "events are kept")
			first := texts(list[:share])
			verify.That(t, strings.HasPrefix(first, "b1; b2; ") && strings.HasSuffix(first, fmt.Sprintf("b%d; agent", share-1)), "the first events: %s", first)
			verify.Equal(t, texts(list[Capacity-2:]), "a; last", "the last events")

			resumed := kept(f, Filter{}, ID{f.start, share})
			want := fmt.Sprintf("agent; %d earlier events of all kinds are not kept any more; a", 3*Capacity-(Capacity-share-1))
			verify.Equal(t, texts(resumed[:3]), want, "after the event before the flood")
		})
	}
}

func TestFeedForgetsAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		f.Add(Event{Kind: KindJoined, Text: "old"})
		time.Sleep(Retention - time.Second)
		f.Add(Event{Kind: KindLeft, Text: "new"})
		verify.Equal(t, texts(kept(f, Filter{}, ID{})), "old; new", "before an hour")
		time.Sleep(time.Second)
		verify.Equal(t, texts(kept(f, Filter{}, ID{})), "new", "after an hour")
		verify.Equal(t, f.order.Len(), 1, "events in memory")
		verify.Equal(t, texts(kept(f, Filter{}, ID{f.start, 1})), "new", "after the forgotten event")
		time.Sleep(Retention)
		got := kept(f, Filter{}, ID{})
		verify.That(t, len(got) == 0, "after two hours: %v", got)
		verify.Equal(t, texts(kept(f, Filter{}, ID{f.start, 1})), "1 earlier events of all kinds are not kept any more", "a reader that knows only the first event")
	})
}

func TestFeedResumesAfterAnEvent(t *testing.T) {
	f := New()
	for i := range 3 {
		f.Add(Event{Kind: KindJoined, Text: fmt.Sprint(i + 1)})
	}
	for _, c := range []struct {
		after ID
		want  string
	}{
		{ID{}, "1; 2; 3"},
		{ID{f.start, 0}, "1; 2; 3"},
		{ID{f.start, 1}, "2; 3"},
		{ID{f.start, 3}, ""},
		{ID{f.start, 9}, ""},
		{ID{6, 1}, "Events may be missing: sluice has started again; 1; 2; 3"},
	} {
		verify.Equal(t, texts(kept(f, Filter{}, c.after)), c.want, "after %s", c.after)
	}
	last := kept(f, Filter{}, ID{})[2]
	verify.Equal(t, last.ID, ID{f.start, 3}, "the last event")
	verify.That(t, last.Level == Info && !last.Time.IsZero() && last.Time.Location() == time.UTC, "got %+v", last)
	var none *Feed
	none.Add(Event{Kind: KindJoined})
}

func TestFilterSelects(t *testing.T) {
	f := New()
	f.Add(Event{Kind: KindJoined, Service: "star", Text: "1"})
	f.Add(Event{Kind: KindEjected, Service: "origin", Text: "2"})
	f.Add(Event{Kind: KindApplied, Text: "3"})
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{Services: []string{"star"}}, "1"},
		{Filter{Services: []string{"star", "origin"}}, "1; 2"},
		{Filter{Kinds: []string{"peer"}}, "1; 2"},
		{Filter{Kinds: []string{"peer.ejected", "config"}}, "2; 3"},
		{Filter{Services: []string{"star"}, Kinds: []string{"config"}}, ""},
	} {
		verify.Equal(t, texts(kept(f, c.filter, ID{})), c.want, "%v", c.filter)
		verify.Equal(t, c.filter.UnknownKind(), "", "%v: is not known", c.filter)
	}
	for _, unknown := range []string{"pee", "peer.", "peer.joine", ""} {
		verify.That(t, (Filter{Kinds: []string{"peer", unknown}}).UnknownKind() == unknown || unknown == "", "%q is known", unknown)
	}
}

func TestReaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		f.Add(Event{Kind: KindJoined, Text: "before"})
		ctx, cancel := context.WithCancel(t.Context())
		_, reader := f.Read(Filter{Services: []string{"star"}}, ID{})
		var got []string
		var err error
		var reading sync.WaitGroup
		reading.Go(func() {
			for {
				var list []Event
				if list, err = reader.Next(ctx); err != nil {
					return
				}
				got = append(got, texts(list))
			}
		})
		synctest.Wait()
		f.Add(Event{Kind: KindJoined, Service: "origin", Text: "other"})
		synctest.Wait()
		f.Add(Event{Kind: KindJoined, Service: "star", Text: "one"})
		synctest.Wait()
		f.Add(Event{Kind: KindJoined, Service: "star", Text: "two"})
		synctest.Wait()
		cancel()
		reading.Wait()
		want := "[one two]"
		verify.That(t, fmt.Sprint(got) == want && errors.Is(err, context.Canceled), "got %v, %v, want %s", got, err, want)
	})
}

func TestCloseEndsReadersAfterTheLastEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New()
		_, early := f.Read(Filter{}, ID{})
		var got []Event
		var err error
		var reading sync.WaitGroup
		reading.Go(func() {
			for err == nil {
				var list []Event
				list, err = early.Next(t.Context())
				got = append(got, list...)
			}
		})
		synctest.Wait()
		f.Add(Event{Kind: KindStopping, Text: "last"})
		f.Close()
		reading.Wait()
		verify.Equal(t, texts(got), "last", "events")
		verify.That(t, errors.Is(err, ErrClosed), "the end: %v", err)
		f.Add(Event{Kind: KindReplaced, Text: "later"})
		verify.Equal(t, texts(kept(f, Filter{}, ID{})), "last; later", "after Close")
	})
}

// A reader that does not read costs those who add nothing, and learns what it has missed.
func TestSlowReaderSkips(t *testing.T) {
	f := New()
	f.Add(Event{Kind: KindJoined, Text: "first"})
	_, slow := f.Read(Filter{}, ID{})
	for i := range Capacity + 5 {
		f.Add(Event{Kind: KindJoined, Text: fmt.Sprint(i)})
	}
	list := verify.Result(slow.Next(t.Context())).Must(t)
	verify.That(t, list[0].Kind == KindSkipped && list[0].ID == (ID{}) && list[0].Text == "5 earlier events of all kinds are not kept any more" && list[1].Text == "5", "got %+v, %+v", list[0], list[1])
	text, err := json.Marshal(list[0])
	verify.That(t, err == nil && !strings.Contains(string(text), `"id"`), "an event without an id: %s, %v", text, err)
}

func TestLongTextsAreShortened(t *testing.T) {
	f := New()
	long := strings.Repeat("ü€", 10000)
	f.Add(Event{Kind: KindUnhealthy, Service: long, Peer: long, Address: long, Node: long, Text: "x" + long})
	e := kept(f, Filter{}, ID{})[0]
	for _, text := range []string{e.Service, e.Peer, e.Address, e.Node, e.Text} {
		verify.That(t, len(text) <= maxText && len(text) >= maxText-8 && utf8.ValidString(text) && strings.HasSuffix(text, "…"), "%d bytes: %q", len(text), text)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	memory := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := memory()
	f := New()
	for i := range 3 * Capacity {
		f.Add(Event{Kind: KindUnhealthy, Service: "star", Text: fmt.Sprint(i, strings.Repeat("x", 4096))})
	}
	grown, most := int64(memory())-int64(before), int64(Capacity*(maxText+400))
	verify.That(t, grown <= most, "the feed has %d bytes, want at most %d", grown, most)
	runtime.KeepAlive(f)
}

func TestIDsAreTexts(t *testing.T) {
	id := ID{1763726578123, 42}
	got, err := ParseID(id.String())
	verify.That(t, got == id && err == nil && id.String() == "1763726578123-42", "got %v, %v", got, err)
	for _, text := range []string{"", "-", "1", "1-", "-1", "1-2-3", "a-1", "1-b", " 1-2", "99999999999999999999-1"} {
		id, err := ParseID(text)
		verify.That(t, err != nil && id == (ID{}), "%q: %v, %v", text, id, err)
	}
	var e Event
	err = json.Unmarshal([]byte(`{"id":"5-6"}`), &e)
	verify.That(t, err == nil && e.ID == (ID{5, 6}), "got %v, %v", e.ID, err)
}

// Every kind is in the list of kinds, because a filter must know it, and in the docs.
func TestKindsAreKnown(t *testing.T) {
	source := verify.Result(os.ReadFile("kind.go")).Must(t)
	docs := verify.Result(os.ReadFile("../../docs/http-api.md")).Must(t)
	declared := strings.Count(string(source), ` Kind = "`)
	verify.That(t, declared == len(kinds), "%d kinds are declared, and %d in the list", declared, len(kinds))
	seen := make(map[Kind]bool)
	for _, k := range Kinds() {
		verify.That(t, !seen[k] && k.Group() != string(k), "%q", k)
		verify.Contains(t, string(docs), "`"+string(k)+"`", "docs/http-api.md lacks %q", k)
		seen[k] = true
	}
}

// While many add and read, each reader sees the events of each adder in order, and knows
// exactly how many it has missed.
func TestChurn(t *testing.T) {
	const adders, each, readers = 4, 8000, 6
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := New()
	var adding, reading sync.WaitGroup
	for r := range readers {
		random := rand.New(rand.NewPCG(seed, uint64(r)))
		_, reader := f.Read(Filter{}, ID{})
		reading.Go(func() {
			var last uint64
			for {
				list, err := reader.Next(t.Context())
				if err != nil {
					verify.That(t, last == adders*each && errors.Is(err, ErrClosed), "reader %d ended at event %d: %v", r, last, err)
					return
				}
				for _, e := range list {
					switch {
					case e.Kind == KindSkipped:
						var n uint64
						_, err := fmt.Sscan(e.Text, &n)
						verify.Succeeds(t, err)
						last += n
					case e.ID.Number != last+1:
						t.Errorf("reader %d got event %d after %d", r, e.ID.Number, last)
						return
					default:
						last++
					}
				}
				if random.IntN(4) == 0 { // resume elsewhere
					var kept []Event
					kept, reader = f.Read(Filter{}, ID{f.start, last})
					for _, e := range kept {
						if e.Kind != KindSkipped {
							last = e.ID.Number
						}
					}
				}
			}
		})
	}
	for a := range adders {
		adding.Go(func() {
			for i := range each {
				f.Add(Event{Kind: KindJoined, Service: fmt.Sprint(a), Text: fmt.Sprint(i)})
			}
		})
	}
	adding.Wait()
	f.Close()
	reading.Wait()
	verify.Equal(t, len(kept(f, Filter{}, ID{})), Capacity, "events are kept")
}
