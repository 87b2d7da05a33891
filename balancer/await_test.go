package balancer

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"sluice/route/places"
	"sluice/test/verify"
)

// addressed returns the block of the n-th client.
func addressed(n byte) places.Block { return places.BlockOf(netip.AddrFrom4([4]byte{10, 0, 0, n})) }

// However many requests of a client wait for a first peer, there is room for those of others: of
// the client that has the most, the latest make room. Clients that nobody tells apart keep theirs.
func TestAClientLeavesRoomToWait(t *testing.T) {
	const pending = 32
	names := map[byte]places.Block{'a': addressed(1), 'b': addressed(2), 'c': addressed(3), 'm': places.Many}
	for _, test := range []struct {
		arrive string // each with that many requests
		each   int
		want   map[byte]int // that wait
	}{
		{"a", 50, map[byte]int{'a': pending}},
		{"abc", 10, map[byte]int{'a': 10, 'b': 10, 'c': 10}},
		{"aaaabc", 10, map[byte]int{'a': 12, 'b': 10, 'c': 10}},
		{"ab", 50, map[byte]int{'a': 16, 'b': 16}},
		{"aaaaaabaaaaaab", 10, map[byte]int{'a': 16, 'b': 16}},
		{"m", 50, map[byte]int{'m': pending}},
		{"am", 50, map[byte]int{'a': 1, 'm': pending - 1}},
		{"ma", 31, map[byte]int{'m': 31, 'a': 1}},
	} {
		t.Run(test.arrive, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, Options{Limits: Limits{Pending: pending}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for _, name := range []byte(test.arrive) {
					for range test.each {
						go p.Await(ctx, names[name], pick(p, nil))
						synctest.Wait()
					}
				}
				all := 0
				for name, client := range names {
					n := len(p.Admission.waiting.clients[client])
					verify.Equal(t, n, test.want[name], "requests of %c that wait", name)
					all += n
				}
				verify.Equal(t, p.Admission.Pending(), all, "requests that wait")
				verify.Equal(t, p.Admission.Refusals()[LimitPending], uint64(len(test.arrive)*test.each-all), "refused")
				time.Sleep(time.Minute)
				synctest.Wait()
				verify.That(t, p.Admission.Pending() == 0 && len(p.Admission.waiting.clients) == 0, "after all: %d wait, of %d clients", p.Admission.Pending(), len(p.Admission.waiting.clients))
			})
		})
	}
}

// However many requests of a client wait for a connection, others have the next one but one.
func TestClientsTakeTurnsAtConnections(t *testing.T) {
	a, b, c := addressed(1), addressed(2), addressed(3)
	for name, test := range map[string]struct {
		arrive []places.Block
		want   string
	}{
		"B after A":                 {[]places.Block{a, a, a, a, b, b}, "abab" + "aa"},
		"three":                     {[]places.Block{a, a, a, b, b, c, a, c}, "abc" + "abc" + "aa"},
		"B after many of many":      {[]places.Block{places.Many, places.Many, places.Many, b, b}, "mmmb" + "b"},
		"many of many after A":      {[]places.Block{a, a, a, places.Many, places.Many, places.Many}, "ammm" + "aa"},
		"in their order, if alone":  {[]places.Block{a, a, a}, "aaa"},
		"in their order, each once": {[]places.Block{c, b, a}, "cba"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, Options{Limits: Limits{PeerConnections: 1, Pending: 100}}, instances(1)...)
				held := hold(t, p, 1)
				names := map[places.Block]string{a: "a", b: "b", c: "c", places.Many: "m"}
				served := ""
				for _, client := range test.arrive {
					go func() {
						token, err := p.AwaitConnection(t.Context(), client, nil)
						if err != nil {
							t.Error(err)
							return
						}
						served += names[client] // one has the connection at a time
						time.Sleep(time.Second)
						token.Done(Outcome{})
					}()
					synctest.Wait()
				}
				held[0].Done(Outcome{})
				time.Sleep(time.Minute)
				synctest.Wait()
				verify.Equal(t, served, test.want, "served")
			})
		})
	}
}
