package balancer

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// FuzzPool drives a pool with a script of two bytes per step and compares it
// with a simple model of its contents.
func FuzzPool(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 0))
	for range 40 {
		script := make([]byte, 160)
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		p := newTestPool(t, Options{NewTransport: newTestTransport, DrainTimeout: time.Hour})
		set := make(map[byte]discovery.Instance)
		reasons := make(map[discovery.Key]Reason)
		panicThreshold := 0.
		used := make(map[*Peer]bool) // by peer that is not closed
		var held []Token
		for ; len(script) >= 2; script = script[2:] {
			n, argument := script[0]&15, script[1]
			i, exists := set[n]
			switch script[0] >> 4 {
			case 0, 1, 2: // add, or change the weight
				if !exists {
					i = instance(int(n), 0)
				}
				i.Weight = int(argument%16) - 1
				set[n] = i
			case 3:
				delete(set, n)
			case 4:
				if exists {
					i.Status = discovery.Status(argument % 4)
					set[n] = i
				}
			case 5: // the same id at another address
				if exists {
					i.Port += 100
					set[n] = i
				}
			case 6, 7, 12, 13:
				if r, down := ReasonActive<<(argument%3), argument&16 != 0; exists && setReason(p, i.Key(), r, down, "") {
					reasons[i.Key()] &^= r
					if down {
						reasons[i.Key()] |= r
					}
				}
			case 8:
				policies := Policies()
				panicThreshold = []float64{0, .5, 1}[argument>>4%3]
				p.Reconfigure(complete(Options{
					Policy: policies[int(argument&15)%len(policies)], PanicThreshold: panicThreshold,
					SlowStart: SlowStart{Window: time.Duration(argument >> 7)}, NewTransport: newTestTransport, DrainTimeout: time.Hour,
				}))
			case 9, 10:
				if token, err := p.Pick(nil); err == nil {
					held = append(held, token)
				}
			case 11:
				for _, token := range held {
					token.Done(Outcome{})
				}
				held = nil
			default: // several changes at once
				continue
			}
			var all []discovery.Instance
			for _, i := range set {
				all = append(all, i)
			}
			p.Apply(all)
			checkPool(t, p, all, reasons, panicThreshold, used, len(held) == 0)
		}
	})
}

// checkPool fails unless p has the peers of set, the right ones are eligible, Pick returns exactly
// these while all are idle, and the transports of the others are drained, and closed when they
// should be.
func checkPool(t *testing.T, p *Pool, set []discovery.Instance, reasons map[discovery.Key]Reason, panicThreshold float64, used map[*Peer]bool, idle bool) {
	t.Helper()
	s := p.Snapshot()
	want := make(map[discovery.Key]bool)    // whether the peer is eligible
	healthy := make(map[discovery.Key]bool) // eligible without panic
	inPanic := make(map[discovery.Key]bool) // eligible in panic
	states := make(map[discovery.Key]State) // StateUp also while it warms
	for _, i := range set {
		registered, r := i.Weight > 0 && i.Status <= discovery.StatusWarning, reasons[i.Key()]
		want[i.Key()] = false
		if registered && r == 0 {
			healthy[i.Key()] = true
		}
		if registered && r&^(ReasonActive|ReasonEjected) == 0 {
			inPanic[i.Key()] = true
		}
		switch { // the first reason of these counts
		case r&ReasonDrain != 0:
			states[i.Key()] = StateDraining
		case !registered || r&ReasonActive != 0:
			states[i.Key()] = StateUnhealthy
		case r&ReasonEjected != 0:
			states[i.Key()] = StateEjected
		}
	}
	panicking := float64(len(healthy)) < panicThreshold*float64(len(inPanic))
	verify.Require(t, s.Panic == panicking, "panic %v with %d of %d and a threshold of %v", s.Panic, len(healthy), len(inPanic), panicThreshold)
	maps.Copy(want, healthy)
	if panicking {
		maps.Copy(want, inPanic)
	}
	draining := make(map[discovery.Key]bool)
	for _, peer := range s.Draining {
		draining[peer.ID] = true
	}
	for key := range reasons {
		if _, present := want[key]; !present && !draining[key] {
			reasons[key] &= ReasonDrain // a later peer has no other reason
		}
	}
	verify.Require(t, len(s.All) == len(want), "%d peers, want %d", len(s.All), len(want))
	eligible := 0
	for _, peer := range s.All {
		expected, present := want[peer.ID]
		got := slices.Contains(s.Eligible, peer)
		verify.Require(t, present && got == expected, "%v: present %v, eligible %v; want %v", peer, present, got, expected)
		state := peer.State()
		if state == StateWarming {
			state = StateUp
		}
		verify.That(t, state == states[peer.ID] && (peer.Reasons() == nil) == healthy[peer.ID], "%v: state %v, reasons %q; want %v", peer, state, peer.Reasons(), states[peer.ID])
		verify.That(t, peer.Weight() >= 0 && (!expected || peer.Weight() != 0), "%v: weight %d", peer, peer.Weight())
		if expected {
			eligible++
		}
	}
	verify.That(t, slices.IsSortedFunc(s.All, comparePeers), "not sorted")
	for _, peer := range s.All {
		transport := transportOf(peer)
		verify.That(t, transport.closes.Load() == 0, "%v: its transport is closed", peer)
		verify.That(t, peer.Used() || !used[peer] || transport.drains.Load() > 0, "%v: connections to a peer that is used no more", peer)
		used[peer] = peer.Used()
	}
	for peer := range used {
		if slices.Contains(s.All, peer) {
			continue
		}
		closed, busy := transportOf(peer).closes.Load(), peer.Inflight() > 0
		verify.That(t, slices.Contains(s.Draining, peer) == busy && (closed == 0) == busy && closed <= 1,
			"%v has left with %d in flight: draining %v, transport closed %d times", peer, peer.Inflight(), s.Draining, closed)
		if !busy {
			delete(used, peer)
		}
	}
	// The peer with the lowest weight of 16 has 1 of at most 211 shares. The
	// probability that it is never picked is below 10⁻¹⁰.
	reached := make(map[*Peer]bool)
	for n := 0; idle && n < 5000 && len(reached) < eligible; n++ {
		token, err := p.Pick(nil)
		verify.Require(t, err == nil, "%d eligible, Pick: %v", eligible, err)
		verify.Require(t, slices.Contains(s.Eligible, token.Peer), "picked %v, which is not eligible", token.Peer)
		reached[token.Peer] = true
		token.Done(Outcome{})
	}
	verify.That(t, len(reached) == eligible || !idle, "%d of %d eligible peers can be picked", len(reached), eligible)
	if eligible == 0 {
		wantErr := ErrNoEligible
		if len(set) == 0 {
			wantErr = ErrNoPeers
		}
		_, err := p.Pick(nil)
		verify.That(t, err == wantErr, "Pick: %v, want %v", err, wantErr)
	}
}
