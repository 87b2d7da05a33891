//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"sync"
)

// An attackFunc does units of an attack on an address, and returns how many it did. What it holds
// stays until release.
type attackFunc func(ctx context.Context, address string, units int) (done int, release func(), err error)

// An attack is what clients do that mean harm.
type attack struct {
	name         string
	about        string
	units        int
	held         bool
	handshakes   bool       // what is held are handshakes, of which sluice may refuse some
	byTCP, byUDP attackFunc // nil: there is none
}

// Each connection of the attacker has one of a few addresses, as if he had them.
const attackers = 16

func attackerIP(i int) net.IP { return net.IPv4(127, 0, 1, byte(1+i%attackers)) }

var attacks = []attack{
	{"beginnings", "handshakes that begin and go no further, held", 1000, true, true, holdHelloTCP, holdHelloQUIC},
	{"spoofed", "the same from 1,000 addresses that never answer", 1000, true, true, nil, holdSpoofedQUIC},
	{"handshakes", "whole handshakes, and the end", 1000, false, false, handshakeTCP, handshakeQUIC},
	{"garbage", "packets of no connection; garbage on new connections", 20_000, false, false, garbageTCP, garbageQUIC},
	{"resets", "requests that are canceled at once", 20_000, false, false, rapidResetHTTP2, rapidResetHTTP3},
	{"bodies", "requests whose body never comes, held", 1600, true, false, holdBodiesHTTP2, holdBodiesHTTP3},
	{"heads", "requests whose head stops halfway, held", 1600, true, false, holdHeadsHTTP2, holdHeadsHTTP3},
	{"readers", "answers of 1 MiB of which 1 KiB is taken, held", 1600, true, false, holdReadersHTTP2, holdReadersHTTP3},
}

// streams is how many streams a connection of the attacker has.
const streams = 100

// A holding collects what an attack holds. It is safe for concurrent use.
type holding struct {
	mu sync.Mutex
	// mu guards the fields below.
	ends []func()
}

func (h *holding) add(end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends = append(h.ends, end)
}

func (h *holding) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, end := range h.ends {
		end()
	}
	h.ends = nil
}

// each calls do for each unit, eight at a time, and returns how many have succeeded; an error if
// none has.
func each(units int, do func(i int) error) (done int, err error) {
	const parallel = 8
	next, mu := 0, sync.Mutex{}
	var work sync.WaitGroup
	var failed error
	for range parallel {
		work.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= units {
					return
				}
				err := do(i)
				mu.Lock()
				if err == nil {
					done++
				} else if failed == nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	work.Wait()
	if done == 0 {
		return 0, errors.Join(errors.New("nothing could be done"), failed)
	}
	return done, nil
}

// eachConnection calls do for each connection, eight at a time, and returns how many units all of
// them have done.
func eachConnection(connections int, do func(i int) (done int, err error)) (done int, err error) {
	var mu sync.Mutex
	_, err = each(max(1, connections), func(i int) error {
		n, err := do(i)
		mu.Lock()
		defer mu.Unlock()
		done += n
		return err
	})
	return done, err
}
