package route

import (
	"sync"
	"sync/atomic"
	"testing"

	"sluice/test/verify"
)

func TestReads(t *testing.T) {
	value := func(names ...string) (list []Value) {
		for _, name := range names {
			list = append(list, Value{Name: name, Kind: ValuePresent})
		}
		return list
	}
	table := verify.Result(NewTable([]Route{
		{Path: "/a", Service: new(Service), Conditions: Conditions{Headers: value("X-B", "X-A"), Not: &Conditions{Queries: value("v")}}},
		{Path: "/b", Service: new(Service), Conditions: Conditions{Any: []Conditions{{Cookies: value("beta")}, {Headers: value("x-a")}}}},
	})).Must(t)
	verify.DeepEqual(t, table.Reads(), Reads{Headers: []string{"x-a", "x-b"}, Queries: []string{"v"}, Cookies: []string{"beta"}}, "what the conditions read")
}

// Of many requests at once one has the turn, and then none until the interval is over.
func TestTurn(t *testing.T) {
	var turn Turn
	for _, test := range []struct {
		now  int64
		want int64
	}{{100, 1}, {100, 0}, {104, 0}, {105, 1}, {106, 0}, {1000, 1}, {500, 1}, {501, 0}} {
		var taken atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if turn.Take(test.now, 5) {
					taken.Add(1)
				}
			})
		}
		all.Wait()
		verify.Equal(t, taken.Load(), test.want, "turns at %d", test.now)
	}
}
