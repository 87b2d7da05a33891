package dns

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/test/hostile"
)

// hostileAnswers change the answers of a server that has the SRV record of a. nil: no answer.
func hostileAnswers() []hostile.Case[func(*dnsmessage.Message) []byte] {
	return append(dnsTargets(), []hostile.Case[func(*dnsmessage.Message) []byte]{
		{Name: "nothing", Reason: "not an answer", Answer: octets("")},
		{Name: "text", Reason: "not an answer", Answer: octets("HTTP/1.1 400 Bad Request")},
		{Name: "zeros", Reason: "not an answer", Answer: octets(strings.Repeat("\x00", 65535))},
		{Name: "another id", Reason: "not an answer", Answer: message(func(m *dnsmessage.Message) { m.ID++ })},
		{Name: "a query", Reason: "not an answer", Answer: message(func(m *dnsmessage.Message) { m.Response = false })},
		{Name: "no question", Reason: "not an answer", Answer: message(func(m *dnsmessage.Message) { m.Questions = nil })},
		{Name: "two questions", Reason: "not an answer", Answer: message(func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) })},
		{Name: "another type", Reason: "not an answer", Answer: message(func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeMX })},
		{Name: "another class", Reason: "not an answer", Answer: message(func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS })},
		{Name: "cut", Reason: "damaged", Answer: func(m *dnsmessage.Message) []byte { b := pack(m); return b[:len(b)-5] }},
		{Name: "fewer records than it says", Reason: "damaged", Answer: func(m *dnsmessage.Message) []byte {
			b := pack(m)
			binary.BigEndian.PutUint16(b[6:], 65535)
			return b
		}},
		{Name: "a name in itself", Reason: "damaged", Answer: func(m *dnsmessage.Message) []byte {
			m.Answers, m.Authorities, m.Additionals = nil, nil, nil
			b := pack(m)
			binary.BigEndian.PutUint16(b[6:], 1)
			return append(binary.BigEndian.AppendUint16(b, 0xc000|uint16(len(b))), 0, 33, 0, 1, 0, 0, 0, 9, 0, 0)
		}},
		{Name: "an extended error", Reason: "answers", Answer: message(func(m *dnsmessage.Message) {
			var h dnsmessage.ResourceHeader
			_ = h.SetEDNS0(1232, 16, false) // BADVERS
			m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}})
		})},
		{Name: "a referral", Reason: "refers", Answer: message(referDNS)},
		{Name: "cut before the first record", Reason: "the answer is cut", Answer: message(func(m *dnsmessage.Message) {
			m.Truncated, m.Answers, m.Additionals = true, nil, nil
		})},
		{Name: "an alias of itself", Reason: "CNAME", Answer: message(func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{{Header: header(m.Questions[0].Name), Body: &dnsmessage.CNAMEResource{CNAME: m.Questions[0].Name}}}
		})},
		{Name: "no port", Reason: "want a host name and a port", Answer: services(1, func(s *dnsmessage.SRVResource, _ int) { s.Port = 0 })},
		{Name: "no address", Reason: "has no address", Answer: services(1, func(s *dnsmessage.SRVResource, _ int) { s.Target = dnsmessage.MustNewName("none.example.") })},
		{Name: "targets without an address", Reason: "has no address", Answer: services(1000, func(s *dnsmessage.SRVResource, n int) {
			s.Target = dnsmessage.MustNewName(fmt.Sprintf("t%d.example.", n))
		})},
		{Name: "many addresses of many targets", Reason: "more than 10000 instances", Answer: func(m *dnsmessage.Message) []byte {
			if m.Questions[0].Type == dnsmessage.TypeSRV {
				return services(101, func(s *dnsmessage.SRVResource, n int) {
					s.Target, s.Port = dnsmessage.MustNewName("t.example."), uint16(n+1)
				})(m)
			}
			m.RCode, m.Authorities = dnsmessage.RCodeSuccess, nil
			for n := range 100 {
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(m.Questions[0].Name), Body: &dnsmessage.AResource{A: [4]byte{10, 0, 0, byte(n)}}})
			}
			return pack(m)
		}},
		{Name: "a TTL of 32 bits", Answer: message(func(m *dnsmessage.Message) {
			for _, list := range [][]dnsmessage.Resource{m.Answers, m.Additionals} {
				for n := range list {
					list[n].Header.TTL = 1<<32 - 1
				}
			}
		})},
	}...)
}

// referDNS makes m an answer that refers to other servers.
func referDNS(m *dnsmessage.Message) {
	name := dnsmessage.MustNewName("example.")
	m.Answers, m.Additionals = nil, nil
	m.Authorities = []dnsmessage.Resource{{Header: header(name), Body: &dnsmessage.NSResource{NS: name}}}
}

// dnsTargets are the hostile.Hosts that fit in a record.
func dnsTargets() (cases []hostile.Case[func(*dnsmessage.Message) []byte]) {
	for _, host := range hostile.Hosts {
		name, err := dnsmessage.NewName(host + ".")
		if err != nil {
			continue
		}
		answer := services(1, func(s *dnsmessage.SRVResource, _ int) { s.Target = name })
		probe := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeSRV}}}
		if _, err := probe.Pack(); err == nil {
			cases = append(cases, hostile.Case[func(*dnsmessage.Message) []byte]{Name: fmt.Sprintf("the host %.20q", host), Reason: "want a host name", Answer: answer})
		}
	}
	return cases
}

// services answers n SRV records, with no addresses.
func services(n int, change func(s *dnsmessage.SRVResource, n int)) func(*dnsmessage.Message) []byte {
	return func(m *dnsmessage.Message) []byte {
		if m.Questions[0].Type == dnsmessage.TypeSRV {
			m.Answers, m.Additionals = nil, nil
			for i := range n {
				s := &dnsmessage.SRVResource{Weight: 1, Port: 80, Target: dnsmessage.MustNewName("a.example.")}
				change(s, i)
				m.Answers = append(m.Answers, dnsmessage.Resource{Header: header(m.Questions[0].Name), Body: s})
			}
		}
		return pack(m)
	}
}

func header(name dnsmessage.Name) dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1}
}

func octets(text string) func(*dnsmessage.Message) []byte {
	return func(*dnsmessage.Message) []byte { return []byte(text) }
}

func message(change func(*dnsmessage.Message)) func(*dnsmessage.Message) []byte {
	return func(m *dnsmessage.Message) []byte {
		change(m)
		return pack(m)
	}
}

func pack(m *dnsmessage.Message) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}
