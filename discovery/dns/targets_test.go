package dns

import (
	"testing"
	"testing/synctest"
	"time"

	"sluice/test/dnstest"
	"sluice/test/verify"
)

// Targets without an address in the answer are queried, at their own TTL, and keep their last
// address while that fails.
func TestTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := zone(srv("a.example", ""), srv("b.example", "10.0.0.2"), []dnstest.Record{{Name: "a.example", Address: "10.0.0.1", TTL: 20}})
		s, w := serve(t, Options{}, records...)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		records[3].Address = "10.0.0.9"
		s.Set(records...)
		time.Sleep(15 * time.Second)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		time.Sleep(10 * time.Second)
		w.expect("a.example:80=10.0.0.9:80 b.example:80=10.0.0.2:80")
		s.Set(records[:3]...)
		time.Sleep(time.Hour)
		w.expect("a.example:80=10.0.0.9:80 b.example:80=10.0.0.2:80")
		w.failing("a.example has no address")
		s.Set(records[1:3]...)
		time.Sleep(2 * time.Second)
		w.expect("b.example:80=10.0.0.2:80")
		w.failing("")
		// An address that an earlier answer had is a last one, too.
		s.Set(zone(srv("b.example", ""), srv("c.example", "10.0.0.3"))...)
		time.Sleep(10 * time.Second)
		w.expect("b.example:80=10.0.0.2:80 c.example:80=10.0.0.3:80")
		w.failing("b.example has no address")
	})
}

// A target without an address, of which a server may say with a TTL of 0 that there is none, is not
// queried every second.
func TestTargetsThatFailAreQueriedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := zone(srv("a.example", "", ttl(60)), srv("b.example", "10.0.0.2", ttl(60)))
		s, w := serve(t, Options{}, records...)
		time.Sleep(5 * time.Minute)
		queries, _ := s.Queries("tcp") // each time three: one is for the service
		verify.That(t, queries < 3*80, "%d queries within 5 min", queries)
		w.expect("b.example:80=10.0.0.2:80")
		w.failing("a.example has no address")
		s.Set(append(records, dnstest.Record{Name: "a.example", Address: "10.0.0.1", TTL: 60})...)
		time.Sleep(10 * time.Second)
		w.expect("a.example:80=10.0.0.1:80 b.example:80=10.0.0.2:80")
		w.failing("")
	})
}
