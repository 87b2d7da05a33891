package operator

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul/sharedkeys"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/long"
	"sluice/test/verify"
)

// star returns the instance number n of a service.
func star(n int) discovery.Instance {
	return discovery.Instance{Service: "star", ID: fmt.Sprint("star-", n), Node: "n1", Datacenter: "dc1", Address: "10.0.0.1", Port: 80 + n, Weight: 1}
}

// drainOf returns an order to drain an instance.
func drainOf(i discovery.Instance) Order {
	o := About(i.Key(), i.Node)
	o.Kind = Drain
	return o
}

func weightOf(i discovery.Instance, weight int) Order {
	o := About(i.Key(), i.Node)
	o.Kind, o.Weight = Weight, weight
	return o
}

// standing returns the orders of a store in words.
func standing(s *Peers) string {
	var list []string
	for _, o := range s.Set().All() {
		list = append(list, o.String())
	}
	return strings.Join(list, "; ")
}

func expectStanding(t *testing.T, s *Peers, want string) {
	t.Helper()
	verify.Equal(t, standing(s), want, "the orders stand")
}

func TestOrdersApplyToInstances(t *testing.T) {
	s := New(Options{Replica: func() string { return "edge-1" }})
	verify.NoError(t, s.Give(drainOf(star(1))))
	verify.NoError(t, s.Give(weightOf(star(2), 7)))
	verify.NoError(t, s.Give(Order{Kind: Drain, Node: "n2", Datacenter: "dc1", Why: "new disks"}))
	moved, other := star(1), star(3)
	moved.Port++ // the same id at another address
	other.Node = "n2"
	elsewhere := other
	elsewhere.Datacenter = "dc2"
	for _, test := range []struct {
		what   string
		i      discovery.Instance
		drain  string
		weight int
	}{
		{"drained", star(1), "by an operator", 0}, {"moved", moved, "", 0}, {"weighted", star(2), "", 7},
		{"on the node", other, "node n2: new disks", 0}, {"on a node of the same name", elsewhere, "", 0},
	} {
		o := s.Set().For(test.i)
		verify.That(t, o.Drain == (test.drain != "") && o.Why == test.drain && o.Weight == test.weight, "%s: %+v", test.what, o)
	}
	o := s.Set().All()[0]
	verify.That(t, o.Replica == "edge-1" && !o.Since.IsZero(), "got %+v", o)
	verify.NoError(t, s.Give(weightOf(star(2), 9)))
	expectStanding(t, s, "drain of the node n2 of dc1; drain of star/star-1 (10.0.0.1:81); weight 9 of star/star-2 (10.0.0.1:82)")
	o = drainOf(star(1))
	for _, want := range []bool{true, false} {
		found, err := s.Store.End(o.Key(), "")
		verify.That(t, found == want && err == nil, "end: %v, %v", found, err)
	}
	expectStanding(t, s, "drain of the node n2 of dc1; weight 9 of star/star-2 (10.0.0.1:82)")
}

func TestKeysAreDifferentAndWhole(t *testing.T) {
	seen := make(map[string]bool)
	for _, o := range []Order{
		{Kind: Drain, Service: "a", ID: "b/c", Address: "h:1"}, {Kind: Drain, Service: "a/b", ID: "c", Address: "h:1"},
		{Kind: Drain, Service: "a", ID: "b", Address: "h:1"}, {Kind: Weight, Service: "a", ID: "b", Address: "h:1"},
		{Kind: Drain, Service: "a", ID: "b", Address: "h:1", Machine: "10.0.0.1"}, {Kind: Drain, Service: "a", ID: "b", Address: "h:2"}, {Kind: Drain, Service: "a", ID: "..", Address: "h:1"},
		{Kind: Drain, Node: "n"}, {Kind: Drain, Node: "n", Datacenter: "drain"}, {Kind: Drain, Node: "=2E=2E"}, {Kind: Drain, Node: ".."},
	} {
		key := o.Key()
		verify.That(t, !seen[key] && !strings.Contains(key, "//") && !strings.Contains(key, ".."), "%+v has the key %s", o, key)
		seen[key] = true
	}
}

func TestRefusedOrders(t *testing.T) {
	long.Sequential(t)
	s := New(Options{})
	for want, o := range map[string]Order{
		"want drain, weight or maintenance": {Kind: "stop", Node: "n"}, "want its name": {Kind: Maintenance, Node: "n"},
		"no peer or node": {Kind: Maintenance, Service: "star", ID: "a"}, "has exceptions": {Kind: Drain, Node: "n", Except: "::1"},
		`except "home": want`: {Kind: Maintenance, Service: "star", Except: "10.0.0.0/8, home"}, "neither a peer nor a node": {Kind: Drain},
		"want up to 32 addresses": {Kind: Maintenance, Service: "star", Except: "::1" + strings.Repeat(" ", maxExceptBytes)}, `"::1\n": want`: {Kind: Maintenance, Service: "star", Except: "::1\n"},
		"33 networks: want up to 32": {Kind: Maintenance, Service: "star", Except: "::1" + strings.Repeat(",::1", maxExcept)},
		"no weight":                  {Kind: Weight, Node: "n", Weight: 1}, "lacks the service": {Kind: Drain, ID: "a"},
		"want a number from 1": weightOf(star(1), 0), "to 65535": weightOf(star(1), 65536),
		"why: want": {Kind: Drain, Node: "n", Why: "a\x1b[2J"}, "by: want": {Kind: Drain, Node: "n", By: strings.Repeat("x", MaxText+1)},
		"expire at once": {Kind: Drain, Node: "n", Until: time.Now()}, "has no id": {Kind: Drain, Service: "a", Node: "n"},
		"printable": {Kind: Drain, Node: "n", Why: "a\xff"}, // the file and Consul would have another text
	} {
		err := s.Give(o)
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%+v: error %v, want %s", o, err, want)
	}
	for n := range Limit {
		verify.NoError(t, s.Give(drainOf(star(n))))
	}
	err := s.Give(drainOf(star(Limit)))
	verify.That(t, errors.Is(err, ErrTooMany), "one too many: %v", err)
	verify.NoError(t, s.Give(drainOf(star(0)))) // again
	s.Store.Pause()
	err = s.Give(drainOf(star(0)))
	verify.That(t, errors.Is(err, ErrTakeover), "while another process has the orders: %v", err)
	_, err = s.Store.End(s.Set().All()[0].Key(), "")
	verify.That(t, errors.Is(err, ErrTakeover), "while another process has the orders: %v", err)
	s.Store.Resume()
	verify.NoError(t, s.Give(drainOf(star(0))))
}

func TestOrdersExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed, changes := events.New(), 0
		s := New(Options{Backing: Backing{Log: zerolog.Nop()}, Events: feed, Changed: func() { changes++ }})
		defer s.Store.Pause()
		short, long := drainOf(star(1)), weightOf(star(2), 5)
		short.Until, long.Until = time.Now().Add(30*time.Minute), time.Now().Add(3*time.Hour)
		verify.NoError(t, s.Give(short))
		verify.NoError(t, s.Give(long))
		verify.NoError(t, s.Give(drainOf(star(3))))
		verify.Equal(t, s.Set().For(star(1)).Why, "by an operator, until 2000-01-01T00:30:00Z", "reason")
		pass(30*time.Minute - time.Millisecond)
		expectStanding(t, s, "drain of star/star-1 (10.0.0.1:81); weight 5 of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)")
		pass(time.Millisecond)
		expectStanding(t, s, "weight 5 of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)")
		verify.NoError(t, s.Give(weightOf(star(2), 6))) // for ever
		time.Sleep(24 * time.Hour)
		expectStanding(t, s, "weight 6 of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)")
		_, err := s.Store.End(s.Set().All()[1].Key(), "root")
		verify.Succeeds(t, err)
		verify.Equal(t, changes, 6, "changes")
		verify.Slices(t, told(feed), []string{ // older events are gone
			"order.ended star-3: An operator has ended an order: drain of star/star-3 (10.0.0.1:83) (by root)",
		}, "told")
	})
}

// told returns what a feed tells.
func told(feed *events.Feed) (lines []string) {
	kept, _ := feed.Read(events.Filter{}, events.ID{})
	for _, e := range kept {
		lines = append(lines, string(e.Kind)+" "+e.Peer+": "+e.Text)
	}
	return lines
}

// While a new process starts, which has the orders, this one still serves: an order expires here at
// its time. If the new process fails, that is not told twice.
func TestOrdersExpireWhileAnotherProcessHasThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed, changes, path := events.New(), 0, newFile(t)
		s := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}, Events: feed, Changed: func() { changes++ }})
		defer s.Store.Close()
		short := drainOf(star(1))
		short.Until = time.Now().Add(time.Second)
		verify.NoError(t, s.Give(short))
		verify.NoError(t, s.Give(drainOf(star(2))))
		written := verify.Result(os.ReadFile(path)).Must(t)
		s.Store.Pause()
		s.Store.Refresh()
		expectStanding(t, s, "drain of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)")
		pass(time.Second)
		expectStanding(t, s, "drain of star/star-2 (10.0.0.1:82)")
		verify.Equal(t, string(verify.Result(os.ReadFile(path)).Must(t)), string(written), "the file of the other process")
		s.Store.Resume()
		expectStanding(t, s, "drain of star/star-2 (10.0.0.1:82)")
		verify.Equal(t, changes, 3, "changes")
		kept, _ := feed.Read(events.Filter{Kinds: []string{string(events.KindOrderExpired)}}, events.ID{})
		verify.Equal(t, len(kept), 1, "events")
		verify.Equal(t, len(handedOver(t, s).Orders), 1, "orders for the next process")
	})
}

// A process that another one has replaced obeys that one's orders for the rest of its requests, but
// they are not its own: it neither writes nor tells them, and has its own ones when it resumes.
func TestOrdersOfTheProcessThatHasThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int64
		feed, path := events.New(), newFile(t)
		s := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}, Events: feed, Changed: func() { changes.Add(1) }})
		verify.NoError(t, s.Give(drainOf(star(1))))
		written := verify.Result(os.ReadFile(path)).Must(t)
		later, short := drainOf(star(2)), drainOf(star(3))
		short.Until = time.Now().Add(time.Second)
		others := map[string]Order{later.Key(): later, short.Key(): short}
		const own, both = "drain of star/star-1 (10.0.0.1:81)", "drain of star/star-2 (10.0.0.1:82); drain of star/star-3 (10.0.0.1:83)"
		s.Store.Replace(others)
		expectStanding(t, s, own) // it has the orders itself
		s.Store.Pause()
		for range 2 {
			s.Store.Replace(others)
			expectStanding(t, s, both)
			verify.Equal(t, changes.Load(), 2, "changes")
		}
		pass(time.Second)
		expectStanding(t, s, "drain of star/star-2 (10.0.0.1:82)")
		verify.Equal(t, string(verify.Result(os.ReadFile(path)).Must(t)), string(written), "the file")
		told, _ := feed.Read(events.Filter{Kinds: []string{string(events.KindOrderGiven)}}, events.ID{})
		verify.Equal(t, len(told), 1, "orders in the feed")
		s.Store.Resume()
		expectStanding(t, s, own)
		s.Store.Close()
		changes.Store(0)
		s.Store.Replace(others)
		verify.Equal(t, changes.Load(), 0, "changes after Close")
	})
}

// A store that is closed changes nothing any more.
func TestNothingExpiresAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := 0
		s := New(Options{Backing: Backing{Log: zerolog.Nop()}, Changed: func() { changes++ }})
		short := drainOf(star(1))
		short.Until = time.Now().Add(time.Second)
		verify.NoError(t, s.Give(short))
		s.Store.Close()
		s.Store.Refresh()
		pass(time.Minute)
		verify.Equal(t, changes, 1, "changes")
	})
}

// An order that expires before Consul has it does not bring back the one that it has replaced.
func TestAnOrderThatConsulLacksExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Backing: Backing{Prefix: "orders", Log: zerolog.Nop()}})
		earlier, short := drainOf(star(1)), drainOf(star(1))
		earlier.Since, short.Until = time.Now(), time.Now().Add(time.Minute)
		s.Store.keys.Restore(map[string]Order{earlier.Key(): earlier}, nil, sharedkeys.Versions{})
		s.Store.Refresh()
		verify.NoError(t, s.Give(short))
		pass(time.Minute)
		expectStanding(t, s, "")
	})
}

// handedOver returns the state of s as another process gets it.
func handedOver(t *testing.T, s *Peers) (state State[Order]) {
	t.Helper()
	text := verify.Result(json.Marshal(s.Store.State())).Must(t)
	verify.NoError(t, json.Unmarshal(text, &state))
	return state
}

func TestTheFeedTellsOfOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := events.New()
		s := New(Options{Events: feed})
		defer s.Store.Pause()
		o := drainOf(star(1))
		o.Why, o.By, o.Until = "new disk", "root@vm", time.Now().Add(time.Minute)
		verify.NoError(t, s.Give(o))
		pass(time.Minute)
		verify.NoError(t, s.Give(Order{Kind: Drain, Node: "n1"}))
		verify.Slices(t, told(feed), []string{
			"order.given star-1: An operator has ordered: drain of star/star-1 (10.0.0.1:81): new disk, until 2000-01-01T00:01:00Z (by root@vm)",
			"order.expired star-1: An order has expired: drain of star/star-1 (10.0.0.1:81)",
			"order.given : An operator has ordered: drain of the node n1",
		}, "told")
	})
}

func TestOrdersSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "orders.json")
		open := func() *Peers {
			s := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}})
			verify.NoError(t, s.Store.Open())
			return s
		}
		a := open()
		_, err := os.Stat(path)
		verify.That(t, err != nil, "a file without orders")
		o := drainOf(star(1))
		o.Why, o.Until = "new disk", time.Now().Add(time.Hour)
		verify.NoError(t, a.Give(o))
		verify.NoError(t, a.Give(weightOf(star(2), 5)))
		verify.NoError(t, a.Give(drainOf(star(3))))
		verify.Result(a.Store.End(a.Set().All()[2].Key(), "")).Must(t)
		b := open() // a has crashed
		a.Store.Pause()
		expectStanding(t, b, "drain of star/star-1 (10.0.0.1:81); weight 5 of star/star-2 (10.0.0.1:82)")
		got, want := b.Set().All()[0], a.Set().All()[0]
		verify.That(t, got.Same(want), "got %+v, want %+v", got, want)
		status := b.Status()
		verify.That(t, status.Saved && !status.Shared && status.Pending == 0 && status.Error == "", "status %+v", status)
		b.Store.Pause()
		time.Sleep(time.Hour)
		c := open()
		defer c.Store.Pause()
		expectStanding(t, c, "weight 5 of star/star-2 (10.0.0.1:82)")
		data, err := os.ReadFile(path)
		verify.That(t, err == nil && !strings.Contains(string(data), "star-1"), "an expired order is in the file: %s, %v", data, err)
	})
}

// To open a named pipe would wait for a writer.
func TestPipeInPlaceOfTheFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "orders.json")
	verify.NoError(t, syscall.Mkfifo(pipe, 0o600))
	s := New(Options{Backing: Backing{Path: pipe, Log: zerolog.Nop()}})
	err := s.Store.Open()
	verify.That(t, err != nil && strings.Contains(err.Error(), "not a regular file"), "%v", err)
	s.Store.Restore(State[Order]{Version: version}) // of another process
	verify.NoError(t, s.Give(drainOf(star(1))))
	verify.That(t, s.Status().Saved, "status %+v", s.Status())
}

func TestDamagedFiles(t *testing.T) {
	good := New(Options{Backing: Backing{Path: filepath.Join(t.TempDir(), "orders.json")}})
	verify.NoError(t, good.Give(weightOf(star(1), 5)))
	text := verify.Result(os.ReadFile(good.options.Path)).Must(t)
	for what, data := range map[string]string{
		"cut off": string(text[:len(text)/2]), "empty": "", "another version": strings.Replace(string(text), `"version": 1`, `"version": 2`, 1),
		"a bad order": strings.Replace(string(text), `"weight": 5`, `"weight": -5`, 1),
	} {
		path := filepath.Join(t.TempDir(), "orders.json")
		verify.NoError(t, os.WriteFile(path, []byte(data), 0o600))
		s := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}})
		err := s.Store.Open()
		verify.That(t, err != nil && strings.Contains(err.Error(), "damaged"), "%s: %v", what, err)
		status := s.Status()
		verify.That(t, !status.Saved && status.Error != "", "%s: status %+v", what, status)
		expectStanding(t, s, "")
		kept, err := os.ReadFile(path + ".damaged")
		verify.That(t, err == nil && string(kept) == data, "%s: the damaged file: %q, %v", what, kept, err)
		verify.NoError(t, s.Give(drainOf(star(2))))
		var state State[Order]
		err = json.Unmarshal(verify.Result(os.ReadFile(path)).Must(t), &state)
		verify.That(t, err == nil && len(state.Orders) == 1 && s.Status().Saved,
			"%s: after the next order: %v, %v, %+v", what, state, err, s.Status())
	}
}

// Without the disk an order takes effect, and is written when the disk is back.
func TestAFileThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := New(Options{Backing: Backing{Path: filepath.Join(dir, "orders.json"), Log: zerolog.Nop()}})
	verify.NoError(t, s.Store.Open())
	verify.NoError(t, s.Give(drainOf(star(1))))
	status := s.Status()
	verify.That(t, !status.Saved && status.Error != "" && len(status.Orders) == 1, "status %+v", status)
	verify.NoError(t, os.Mkdir(dir, 0o700))
	verify.NoError(t, s.Give(drainOf(star(2))))
	status = s.Status()
	verify.That(t, status.Saved && status.Error == "", "status %+v", status)
}

// A process hands over what Consul does not have yet, and what it still has.
func TestAStateGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := New(Options{Backing: Backing{Prefix: "orders"}})
		given, ended, kept, lost := drainOf(star(1)), drainOf(star(2)), drainOf(star(3)), drainOf(star(4))
		given.Since, ended.Since, kept.Since, lost.Since = time.Now(), time.Now(), time.Now(), time.Now()
		old.Store.keys.Restore(map[string]Order{ended.Key(): ended, kept.Key(): kept}, map[string]*Order{given.Key(): &given}, sharedkeys.Versions{})
		old.Store.keys.RestoreLost(lost.Key(), lost, 0)
		old.Store.Refresh()
		verify.Result(old.Store.End(ended.Key(), "")).Must(t)
		state := handedOver(t, old)
		next, other := New(Options{Backing: Backing{Prefix: "orders"}}), New(Options{Backing: Backing{Prefix: "others"}})
		next.Store.use(state)
		other.Store.use(state)
		for _, s := range []*Peers{next, other} {
			expectStanding(t, s, "drain of star/star-1 (10.0.0.1:81); drain of star/star-3 (10.0.0.1:83); drain of star/star-4 (10.0.0.1:84)")
		}
		e := next.Store.keys.Of(ended.Key())
		verify.That(t, next.Status().Pending == 3 && e.Absent && e.Pending && !next.Store.keys.Of(kept.Key()).Changing, "next: %+v, %+v", next.Status(), e)
		e = next.Store.keys.Of(lost.Key())
		verify.That(t, e.Restores && e.Conditional && e.Pending, "what Consul has lost: %+v", e)
		e = other.Store.keys.Of(kept.Key())
		verify.That(t, other.Status().Pending == 3 && e.Pending && e.Restores &&
			!other.Store.keys.Of(ended.Key()).Changing,
			"with another prefix: %+v", other.Status())
	})
}

// What Consul has had gives way to what others have ordered meanwhile, also after a process that
// shares no orders.
func TestSharedOrdersReturnFromAProcessThatSharesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, alone, next := New(Options{Backing: Backing{Prefix: "orders"}}), New(Options{}), New(Options{Backing: Backing{Prefix: "orders"}})
		shared, given := drainOf(star(1)), drainOf(star(2))
		old.Store.keys.Restore(map[string]Order{shared.Key(): shared}, nil, sharedkeys.Versions{})
		alone.Store.use(handedOver(t, old))
		verify.NoError(t, alone.Give(given))
		next.Store.use(handedOver(t, alone))
		expectStanding(t, next, "drain of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)")
		verify.That(t, next.Store.Entry(shared.Key()).Restores, "the shared order: %+v", next.Store.Entry(shared.Key()))
		verify.That(t, !next.Store.Entry(given.Key()).Conditional, "the order that no other replica knows: %+v", next.Store.Entry(given.Key()))
	})
}

// A process that another one has replaced, or that does not serve yet, takes no order and writes no
// file. When it serves, it writes what it has adopted.
func TestOnlyTheOwnerTakesAndWritesOrders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	old := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}})
	verify.NoError(t, old.Give(drainOf(star(1))))
	before := verify.Result(os.ReadFile(path)).Must(t)
	verify.NoError(t, old.Give(drainOf(star(2))))
	state := old.Store.State()
	verify.NoError(t, os.WriteFile(path, before, 0o600))

	owns := false
	next := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop(), Own: func(f func()) bool {
		if owns {
			f()
		}
		return owns
	}}})
	next.Store.use(state)
	next.Store.Resume()
	const both = "drain of star/star-1 (10.0.0.1:81); drain of star/star-2 (10.0.0.1:82)"
	expectStanding(t, next, both)
	err := next.Give(drainOf(star(3)))
	verify.That(t, errors.Is(err, ErrTakeover), "an order: %v", err)
	_, err = next.Store.End(drainOf(star(1)).Key(), "")
	verify.That(t, errors.Is(err, ErrTakeover), "the end of an order: %v", err)
	expectStanding(t, next, both)
	now, err := os.ReadFile(path)
	verify.That(t, err == nil && string(now) == string(before), "the file is %s, %v", now, err)
	owns = true
	next.Store.Refresh()
	again := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}})
	verify.NoError(t, again.Store.Open())
	expectStanding(t, again, both)
}

// What has ended while a new process took over is not in the file any more.
func TestANewProcessWritesThatOrdersHaveEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "orders.json")
	open := func() *Peers { return New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}}) }
	verify.NoError(t, open().Give(drainOf(star(1))))
	open().Store.Restore(State[Order]{Version: version})
	again := open()
	verify.NoError(t, again.Store.Open())
	expectStanding(t, again, "")
}

func TestMaintenanceOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "orders.json")
		a := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}})
		o := Order{Kind: Maintenance, Service: "star", Why: "new disks", Except: "10.0.0.0/8, 192.0.2.1", Until: time.Now().Add(time.Hour)}
		verify.NoError(t, a.Give(o))
		verify.NoError(t, a.Give(drainOf(star(1))))
		b := New(Options{Backing: Backing{Path: path, Log: zerolog.Nop()}})
		verify.NoError(t, b.Store.Open()) // a has crashed
		a.Store.Pause()
		defer b.Store.Pause()
		expectStanding(t, b, "drain of star/star-1 (10.0.0.1:81); maintenance of the service star")
		m := b.Set().Maintenance("star")
		verify.Require(t, m != nil && m.Why == "new disks", "the maintenance is %+v", m)
		for client, want := range map[string]bool{"10.1.2.3": true, "192.0.2.1": true, "192.0.2.2": false, "::1": false} {
			verify.Equal(t, m.Excepts(netip.MustParseAddr(client)), want, "it excepts %s", client)
		}
		verify.That(t, b.Set().Maintenance("moon") == nil, "another service is in maintenance")
		key := b.Set().OfService("star").Key()
		verify.Equal(t, key, "services/star/maintenance", "the key")
		text := verify.Result(json.Marshal(b.Set().OfService("star"))).Must(t)
		parsed, err := parse(key, text)
		verify.That(t, err == nil && parsed.Same(*b.Set().OfService("star")), "the value of the key is %+v: %v", parsed, err)
		pass(time.Hour)
		expectStanding(t, b, "drain of star/star-1 (10.0.0.1:81)")
	})
}

// A time of +24:00 can be read, and not be written again: an answer or a state with it could not be
// written at all.
func TestOrdersWithTimesThatCannotBeWritten(t *testing.T) {
	order := func(since, until string) []byte {
		return fmt.Appendf(nil, `{"order":"drain","node":"n","since":%q,"until":%q}`, since, until)
	}
	const usual, strange = "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+24:00"
	_, err := parse(nodeKey("n", ""), order(usual, usual))
	verify.NoError(t, err)
	for _, text := range [][]byte{order(strange, usual), order(usual, strange)} {
		o, err := parse(nodeKey("n", ""), text)
		verify.That(t, err != nil && strings.Contains(err.Error(), "timezone"), "%s: %+v, %v", text, o, err)
	}
}
