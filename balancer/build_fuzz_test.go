package balancer

import (
	"maps"
	"slices"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// FuzzPool drives a pool with a script of two bytes per step and compares it
// with a simple model of its contents.
func FuzzPool(f *testing.F) {
	f.Add([]byte{0, 1, 16, 3, 32, 2, 1, 0, 48, 0})
	f.Add([]byte{0, 5, 1, 5, 2, 5, 3, 5, 0x42, 1, 0x10, 0, 0x11, 0, 0x62, 0x31})
	f.Add([]byte("every step changes one of sixteen instances"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		p := newTestPool(t, Options{NewTransport: newTestTransport})
		set := make(map[byte]discovery.Instance)
		reasons := make(map[discovery.Key]Reason)
		panicThreshold := 0.
		known := make(map[*Peer]bool)
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
			case 6, 7:
				if r, down := ReasonActive<<(argument%3), argument&16 != 0; exists && setReason(p, i.Key(), r, down, "") {
					reasons[i.Key()] &^= r
					if down {
						reasons[i.Key()] |= r
					}
				}
			case 8:
				policies := Policies()
				panicThreshold = []float64{0, .5, 1}[argument>>4%3]
				verify.NoError(t, p.Reconfigure(complete(Options{
					Policy: policies[int(argument&15)%len(policies)], PanicThreshold: panicThreshold,
					SlowStart: SlowStart{Window: time.Duration(argument >> 7)}, NewTransport: newTestTransport,
				})))
			default: // several changes at once
				continue
			}
			var all []discovery.Instance
			for _, i := range set {
				all = append(all, i)
			}
			p.Apply(all)
			checkPool(t, p, all, reasons, panicThreshold, known)
		}
	})
}

// checkPool fails unless p has the peers of set, the right ones are eligible, and Pick returns
// exactly these.
func checkPool(t *testing.T, p *Pool, set []discovery.Instance, reasons map[discovery.Key]Reason, panicThreshold float64, known map[*Peer]bool) {
	t.Helper()
	s := p.Snapshot()
	want := make(map[discovery.Key]bool)    // whether the peer is eligible
	healthy := make(map[discovery.Key]bool) // eligible without panic
	inPanic := make(map[discovery.Key]bool) // eligible in panic
	for _, i := range set {
		registered, r := i.Weight > 0 && i.Status <= discovery.StatusWarning, reasons[i.Key()]
		want[i.Key()] = false
		if registered && r == 0 {
			healthy[i.Key()] = true
		}
		if registered && r&^(ReasonActive|ReasonEjected) == 0 {
			inPanic[i.Key()] = true
		}
	}
	panicking := float64(len(healthy)) < panicThreshold*float64(len(inPanic))
	verify.Require(t, s.Panic == panicking, "panic %v with %d of %d and a threshold of %v", s.Panic, len(healthy), len(inPanic), panicThreshold)
	maps.Copy(want, healthy)
	if panicking {
		maps.Copy(want, inPanic)
	}
	for key := range reasons {
		if _, present := want[key]; !present {
			reasons[key] &= ReasonDrain // a later peer has no other reason
		}
	}
	verify.Require(t, len(s.All) == len(want) && len(s.Draining) == 0, "%d peers, %d draining; want %d, 0", len(s.All), len(s.Draining), len(want))
	eligible := 0
	for _, peer := range s.All {
		known[peer] = true
		expected, present := want[peer.ID]
		got := slices.Contains(s.Eligible, peer)
		verify.Require(t, present && got == expected, "%v: present %v, eligible %v; want %v", peer, present, got, expected)
		if up := peer.State() <= StateWarming; up != healthy[peer.ID] || (peer.Reasons() == nil) != healthy[peer.ID] {
			t.Errorf("%v: state %v, reasons %q, but should be used as a matter of course: %v", peer, peer.State(), peer.Reasons(), healthy[peer.ID])
		}
		verify.That(t, peer.Weight() >= 0 && (!expected || peer.Weight() != 0), "%v: weight %d", peer, peer.Weight())
		if expected {
			eligible++
		}
	}
	verify.That(t, slices.IsSortedFunc(s.All, comparePeers), "not sorted")
	for peer := range known {
		_, present := want[peer.ID]
		gone := !present || !slices.Contains(s.All, peer)
		closed := transportOf(peer).closes.Load()
		verify.That(t, (!gone || closed == 1) && (gone || closed == 0), "%v: gone %v, transport closed %d times", peer, gone, closed)
		if gone {
			delete(known, peer)
		}
	}
	// The peer with the lowest weight of 16 has 1 of at most 211 shares. The
	// probability that it is never picked is below 10⁻¹⁰.
	reached := make(map[*Peer]bool)
	for n := 0; n < 5000 && len(reached) < eligible; n++ {
		token, err := p.Pick(nil)
		verify.Require(t, err == nil, "%d eligible, Pick: %v", eligible, err)
		verify.Require(t, slices.Contains(s.Eligible, token.Peer), "picked %v, which is not eligible", token.Peer)
		reached[token.Peer] = true
		token.Done(Outcome{})
	}
	verify.That(t, len(reached) == eligible, "%d of %d eligible peers can be picked", len(reached), eligible)
	if eligible == 0 {
		wantErr := ErrNoEligible
		if len(set) == 0 {
			wantErr = ErrNoPeers
		}
		_, err := p.Pick(nil)
		verify.That(t, err == wantErr, "Pick: %v, want %v", err, wantErr)
	}
}
