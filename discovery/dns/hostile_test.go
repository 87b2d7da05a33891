package dns

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/net/dns/dnsmessage"

	"sluice/discovery/locality"
	"sluice/test/dnstest"
	"sluice/test/hostile"
	"sluice/test/verify"
)

func TestHostileAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dnstest.New()
		var records []dnstest.Record
		for n := range 1000 { // each target needs a query, which has no answer
			records = append(records, srv(fmt.Sprintf("t%d.example", n), "")...)
		}
		s.Set(records...)
		asked := 0 // for the SRV records
		s.Change(func(m *dnsmessage.Message) []byte {
			if m.Questions[0].Type != dnsmessage.TypeSRV {
				return nil
			}
			asked++
			bytes, _ := m.Pack()
			return bytes
		})
		w := watchServers(t, Options{}, s)
		begin := time.Now()
		time.Sleep(time.Minute)
		queries, _ := s.Queries("tcp")
		verify.That(t, queries <= 60, "%d queries in %v", queries, time.Since(begin))
		synctest.Wait()
		verify.That(t, asked >= 4, "the records were queried %d times in %v: the targets delay that", asked, time.Since(begin))
		w.expect("")
	})
}

// Whatever poses as a DNS server, the last good set stays in use, and the state tells why.
func TestHostileAnswers(t *testing.T) {
	hostile.Test(t, func(log zerolog.Logger) hostile.Registry[func(*dnsmessage.Message) []byte] {
		s := dnstest.New()
		source := NewSource("star", Options{Name: "_star._tcp.example", Type: SRV, Servers: []string{"ns0:53"}}, locality.ByOperator).(*source)
		source.dial = s.Dial
		return hostile.Registry[func(*dnsmessage.Message) []byte]{
			Source: source,
			Good: func(words string) {
				var records []dnstest.Record
				for _, word := range strings.Fields(words) {
					records = append(records, srv(word+".example", "10.0.0.1", func(r *dnstest.Record) { r.Port = uint16(hostile.Port(word)) })...)
				}
				s.Set(records...)
				s.Change(nil)
			},
			Say:   s.Change,
			Close: func() {},
		}
	}, hostileAnswers())
}
