package dns

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/test/verify"
)

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
