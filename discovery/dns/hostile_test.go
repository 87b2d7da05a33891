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

// Whatever a server sends, parse returns; and what it accepts answers the question.
func FuzzParse(f *testing.F) {
	q := newQuestion("_star._tcp.example", dnsmessage.TypeSRV)
	f.Add(verify.Result(q.pack(7, true)).Must(f))
	name := dnsmessage.MustNewName(q.name)
	h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1 << 31}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeSRV, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{
			{Header: h, Body: &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 80, Target: dnsmessage.MustNewName("a.example.")}},
			{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: name}},
			{Header: h, Body: &dnsmessage.TXTResource{TXT: []string{"text"}}},
		},
		Additionals: []dnsmessage.Resource{
			{Header: h, Body: &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}}},
			{Header: h, Body: &dnsmessage.AAAAResource{}},
		},
	}
	whole := verify.Result(m.Pack()).Must(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	referDNS(&m)
	refers, _ := m.Pack()
	f.Add(refers)
	f.Fuzz(func(t *testing.T, message []byte) {
		r, err := q.parse(message, 7)
		verify.Require(t, (r == nil) == (err != nil), "%v, %v", r, err)
		if err != nil {
			return
		}
		records := append(r.answers, r.additional...)
		const smallest = 11 // octets of a record
		verify.That(t, len(records) <= len(message)/smallest, "%d octets contain %d records", len(message), len(records))
		for _, record := range records {
			verify.That(t, record.ttl >= 0 && len(record.name) <= 255 && len(record.target) <= 255, "%+v", record)
		}
		var a answer
		owner, err := a.read(r, normal(q.name), q.kind)
		verify.That(t, err != nil || len(a.records) == 0 || a.records[0].name == owner, "the records of %s: %+v", owner, a.records)
	})
}
