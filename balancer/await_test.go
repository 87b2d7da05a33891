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

// However many requests of a client wait for a first peer, there is room for those of others: each
// client has at most as many as it leaves to them. Clients that nobody tells apart may have all.
func TestAClientLeavesRoomToWait(t *testing.T) {
	a, b, c := addressed(1), addressed(2), addressed(3)
	type wait struct {
		client   places.Block
		requests int
		refused  int
	}
	for name, waits := range map[string][]wait{
		"one client":                   {{a, 50, 34}},
		"A does all it can, then B":    {{a, 50, 34}, {b, 10, 2}, {c, 10, 6}},
		"A goes on while B comes":      {{a, 50, 34}, {b, 1, 0}, {a, 50, 50}, {b, 1, 0}},
		"clients that are not told":    {{places.Many, 50, 18}},
		"such clients, after another":  {{a, 50, 34}, {places.Many, 50, 34}},
		"a client, after many of them": {{places.Many, 30, 0}, {a, 5, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTestPool(t, Options{Limits: Limits{Pending: 32}})
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for _, w := range waits {
					before := p.Admission.Refusals()[LimitPending]
					for range w.requests {
						go p.Await(ctx, w.client, pick(p, nil))
						synctest.Wait()
					}
					verify.Equal(t, p.Admission.Refusals()[LimitPending]-before, uint64(w.refused), "refused")
				}
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
				p := newTestPool(t, Options{Limits: Limits{PeerConnections: 1, Pending: 100}})
				p.Apply(instances(1))
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
