package dns01

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"sluice/test/dnstest"
	"sluice/test/parallel"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// The tests mostly wait.
func TestMain(m *testing.M) {
	parallel.SetDefault(8)
	goleak.VerifyTestMain(m)
}

// wait limits each wait, far above the time that a step takes.
const wait = time.Minute

func challenge(name, token string) acme.Challenge {
	return acme.Challenge{Type: acme.ChallengeTypeDNS01, Token: token, KeyAuthorization: token + ".key", Identifier: acme.Identifier{Type: "dns", Value: name}}
}

// updating returns a solver that changes zones by RFC 2136.
func updating(t *testing.T, zones *dnstest.Zones, change ...func(*Options)) *Solver {
	t.Helper()
	o := Options{
		Provider: Provider{Name: RFC2136, Server: zones.Address, KeyFile: write(t, dnstest.UpdateKey)},
		Timeout:  wait, Propagation: wait, Resolvers: []string{zones.Address}, Log: zerolog.Nop(),
	}
	for _, f := range change {
		f(&o)
	}
	s := New(o)
	t.Cleanup(func() {
		s.Close()
		s.Await()
	})
	return s
}

// A wildcard and its domain have records of the same name at the same time.
func TestRecordsOfOneName(t *testing.T) {
	zones := dnstest.StartZones(t, "example")
	s := updating(t, zones)
	a, b := challenge("A.example", "a"), challenge("a.example", "b")
	for _, c := range []acme.Challenge{a, b} {
		verify.NoError(t, s.Present(t.Context(), c))
		verify.NoError(t, s.Wait(t.Context(), c))
	}
	verify.Equal(t, len(zones.Texts("_acme-challenge.a.example")), 2, "records")
	verify.NoError(t, s.CleanUp(t.Context(), a))
	verify.Slices(t, zones.Texts("_acme-challenge.a.example"), []string{b.DNS01KeyAuthorization()}, "records after the first was removed")
	verify.NoError(t, s.CleanUp(t.Context(), b))
	verify.NoError(t, s.CleanUp(t.Context(), b)) // acmez may call it again
	verify.Slices(t, zones.Left(), nil, "records that are left")
}

// A challenge is delegated by CNAME records, also over two of them and to another zone.
func TestDelegation(t *testing.T) {
	zones := dnstest.StartZones(t, "example", "challenges.test")
	zones.Alias("_acme-challenge.a.example", "b.Example")
	zones.Alias("b.example", "a.challenges.test")
	s := updating(t, zones)
	c := challenge("a.example", "a")
	verify.NoError(t, s.Present(t.Context(), c))
	verify.Slices(t, zones.Texts("a.challenges.test"), []string{c.DNS01KeyAuthorization()}, "records of the target")
	verify.NoError(t, s.Wait(t.Context(), c))
	verify.NoError(t, s.CleanUp(t.Context(), c))
	verify.Slices(t, zones.Left(), nil, "records that are left")

	zones.Alias("_acme-challenge.loop.example", "loop.example")
	zones.Alias("loop.example", "_acme-challenge.loop.example")
	zones.Alias("_acme-challenge.odd.example", `a\;b.example`)
	zones.Alias("_acme-challenge.away.example", "elsewhere.invalid")
	for name, want := range map[string]string{"loop": "more than 8 CNAME records", "odd": "want letters, digits", "away": "REFUSED"} {
		c := challenge(name+".example", "a")
		err := s.Present(t.Context(), c)
		verify.That(t, err != nil && strings.Contains(err.Error(), want), "%s: %v", name, err)
		verify.NoError(t, s.CleanUp(t.Context(), c))
	}
}

// Wait ends when all servers that answer have the record. A wait that is over says what was wrong.
func TestPropagation(t *testing.T) {
	t.Parallel()
	first, second, dead := dnstest.StartZones(t, "example"), dnstest.StartZones(t, "example"), dnstest.StartZones(t, "example")
	s := updating(t, first, func(o *Options) { o.Resolvers = []string{first.Address, second.Address, "127.0.0.1:1"} })
	c := challenge("a.example", "a")
	first.Hide(3)
	verify.NoError(t, s.Present(t.Context(), c))
	ended := make(chan error)
	go func() { ended <- s.Wait(t.Context(), c) }()
	for tick := time.Tick(5 * time.Millisecond); ; <-tick {
		if _, asked := second.Counts(); asked > 1 {
			break // the first has it, and the second has not
		}
		select {
		case err := <-ended:
			t.Fatalf("the wait has ended: %v", err)
		default:
		}
	}
	other := updating(t, second)
	verify.NoError(t, other.Present(t.Context(), c))
	verify.NoError(t, <-ended)
	verify.NoError(t, other.CleanUp(t.Context(), c))
	verify.NoError(t, s.CleanUp(t.Context(), c))

	for what, want := range map[string]string{"refused": "does not have it", "dead": "no name server of the zone answers"} {
		s := updating(t, dead, func(o *Options) { o.Propagation = 10 * time.Millisecond })
		c := challenge("a.example", what)
		dead.Hide(1000)
		verify.NoError(t, s.Present(t.Context(), c))
		if what == "dead" {
			s.options.Resolvers = []string{"127.0.0.1:1"}
			want = "connection refused"
		}
		err := s.Wait(t.Context(), c)
		verify.That(t, err != nil && strings.Contains(err.Error(), "is not at all name servers after 10ms") && strings.Contains(err.Error(), want), "%s: %v", what, err)
		verify.NoError(t, s.CleanUp(t.Context(), c))
	}
}

// The name servers that nobody has named are found, and a wait outlives their outage.
func TestOutageOfDNS(t *testing.T) {
	t.Parallel()
	zones := dnstest.StartZones(t, "example")
	s := updating(t, zones)
	c := challenge("a.example", "a")
	verify.NoError(t, s.Present(t.Context(), c))
	zones.Freeze(true)
	ended := make(chan error)
	go func() { ended <- s.Wait(t.Context(), c) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	b := challenge("b.example", "b")
	verify.That(t, s.Present(ctx, b) != nil, "a record without name servers")
	verify.NoError(t, s.CleanUp(t.Context(), b))
	zones.Freeze(false)
	verify.NoError(t, <-ended)
	verify.NoError(t, s.CleanUp(t.Context(), c))
}

// A record is removed although its order has ended, and the end of the program waits for that. A
// record of which nobody knows whether it was made is removed too.
func TestEnd(t *testing.T) {
	zones := dnstest.StartZones(t, "example")
	log := new(subprocess.Output)
	s := updating(t, zones, func(o *Options) { o.Log = zerolog.New(log) })
	s.Close()
	verify.That(t, s.Present(t.Context(), challenge("late.example", "a")) != nil, "a record after the end")

	s = updating(t, zones, func(o *Options) { o.Log = zerolog.New(log) })
	c := challenge("a.example", "a")
	ctx, cancel := context.WithCancel(t.Context())
	verify.NoError(t, s.Present(ctx, c))
	zones.Hide(1000)
	waited := make(chan error)
	go func() {
		err := s.Wait(ctx, c)
		_ = s.CleanUp(ctx, c)
		waited <- err
	}()
	cancel()
	s.Close()
	s.Await()
	verify.Slices(t, zones.Left(), nil, "records that are left")
	verify.That(t, errors.Is(<-waited, context.Canceled), "the wait does not end with its order")

	zones.Refuse(true)
	s = updating(t, zones, func(o *Options) { o.Log = zerolog.New(log) })
	err := s.Present(t.Context(), c)
	verify.That(t, err != nil && strings.Contains(err.Error(), "cannot be made") && strings.Contains(err.Error(), "REFUSED"), "refused: %v", err)
	verify.That(t, s.CleanUp(t.Context(), c) != nil, "a record that may be there is forgotten")
	verify.That(t, strings.Contains(log.String(), "cannot be removed"), "log %q", log)
	s.Close()
	s.Await() // nothing is left to do
}

// Without servers in the configuration, those of the zone's NS records are asked.
func TestServersOfAZone(t *testing.T) {
	zones := dnstest.StartZones(t, "example")
	zones.Plain("ns1.example", "ns2.example")
	found := verify.Result(resolver{"127.0.0.1:1", zones.Address}.authorities(t.Context(), "example")).Must(t)
	var names []string
	for _, s := range found {
		names = append(names, s.name+" "+strings.Join(s.addresses, " "))
	}
	slices.Sort(names)
	verify.Slices(t, names, []string{"ns1.example 127.0.0.1:53", "ns2.example 127.0.0.1:53"}, "servers")
}
