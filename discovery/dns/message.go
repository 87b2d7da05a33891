package dns

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// datagramBytes is the size of UDP answers that queries ask for: it fits in a packet of every
// network. https://www.dnsflagday.net/2020/
const datagramBytes = 1232

// question is a query for the records of one type that a name has.
type question struct {
	name string // absolute, in lower case
	kind dnsmessage.Type
}

// newQuestion returns the question for the records of a name. A name is absolute, with or
// without a dot at its end: there is no list of domains to search.
func newQuestion(name string, kind dnsmessage.Type) question {
	return question{normal(name) + ".", kind}
}

// normal returns a name in lower case, without the dot at its end.
func normal(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// pack returns the message of a query. edns asks for answers of up to datagramBytes.
func (q question) pack(id uint16, edns bool) ([]byte, error) {
	name, err := dnsmessage.NewName(q.name)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", q.name, err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}},
	}
	if edns {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(datagramBytes, dnsmessage.RCodeSuccess, false); err != nil {
			return nil, err
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	return m.Pack()
}

// reply is an answer that says what records there are: RFC 1035, section 4.
type reply struct {
	answers    []record
	additional []record      // addresses only
	nxdomain   bool          // the name does not exist
	negative   time.Duration // how long it is known that records do not exist: RFC 2308, section 5
	mayBeCut   bool          // there may be more records
	cut        bool          // over TCP, and there are more records, or the server would not say so
}

// record is an A, AAAA, CNAME or SRV record.
type record struct {
	name string // see normal
	kind dnsmessage.Type
	ttl  time.Duration

	address                netip.Addr // A, AAAA
	target                 string     // CNAME, SRV; see normal: empty is the root
	priority, weight, port uint16     // SRV
}

var (
	errNotAnswer = errors.New("not an answer to the query")
	errRefuses   = errors.New("the server answers")
	errReferral  = errors.New("the server refers to other servers, and does not resolve names itself")
	errCut       = errors.New("the answer is cut, and has no record")
)

// parse reads a message. It returns errNotAnswer for one that does not answer q with this id,
// and another error for one that cannot be understood, or that says that the server has failed.
func (q question) parse(message []byte, id uint16) (*reply, error) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || !h.Response || h.ID != id {
		return nil, errNotAnswer
	}
	questions, err := p.AllQuestions()
	if err != nil {
		return nil, fmt.Errorf("the answer is damaged: %w", err)
	}
	if !q.asked(h.RCode, questions) {
		return nil, errNotAnswer
	}
	answers, err := p.AllAnswers()
	authorities, errAfter := p.AllAuthorities()
	additionals, errLast := p.AllAdditionals()
	if err := cmp.Or(err, errAfter, errLast); err != nil {
		return nil, fmt.Errorf("the answer is damaged: %w", err)
	}
	r := &reply{answers: recordsOf(answers), additional: recordsOf(additionals), mayBeCut: h.Truncated}
	start, referral := false, false // RFC 2308, section 2.2: it names other servers in place of an answer
	for _, a := range authorities {
		switch body := a.Body.(type) {
		case *dnsmessage.SOAResource:
			r.negative, start = min(ttlOf(a.Header.TTL), ttlOf(body.MinTTL)), true
		case *dnsmessage.NSResource:
			referral = true
		}
	}
	code := h.RCode
	for _, a := range additionals {
		if a.Header.Type == dnsmessage.TypeOPT { // it has the upper bits: RFC 6891, section 6.1.3
			code = a.Header.ExtendedRCode(code)
		}
	}
	switch {
	case code == dnsmessage.RCodeNameError:
		r.nxdomain = true
	case code != dnsmessage.RCodeSuccess:
		return nil, fmt.Errorf("%w %s", errRefuses, strings.ToUpper(strings.TrimPrefix(code.String(), "RCode")))
	case referral && !start && len(r.answers) == 0:
		return nil, errReferral
	case h.Truncated && len(r.answers) == 0 && !r.nxdomain:
		return nil, errCut
	}
	return r, nil
}

// asked reports whether questions, from an answer, ask what q asks. A server that fails may leave
// the question out.
func (q question) asked(code dnsmessage.RCode, questions []dnsmessage.Question) bool {
	if len(questions) == 0 {
		return code != dnsmessage.RCodeSuccess && code != dnsmessage.RCodeNameError
	}
	a := questions[0]
	return len(questions) == 1 && a.Class == dnsmessage.ClassINET && a.Type == q.kind && normal(a.Name.String()) == normal(q.name)
}

// recordsOf returns the records of a section. Those of other types are left out.
func recordsOf(section []dnsmessage.Resource) (list []record) {
	for _, from := range section {
		h := from.Header
		r := record{name: normal(h.Name.String()), kind: h.Type, ttl: ttlOf(h.TTL)}
		switch body := from.Body.(type) {
		case *dnsmessage.AResource:
			r.address = netip.AddrFrom4(body.A)
		case *dnsmessage.AAAAResource:
			r.address = netip.AddrFrom16(body.AAAA).Unmap()
		case *dnsmessage.CNAMEResource:
			r.target = normal(body.CNAME.String())
		case *dnsmessage.SRVResource:
			r.target, r.priority, r.weight, r.port = normal(body.Target.String()), body.Priority, body.Weight, body.Port
		default:
			continue
		}
		if h.Class == dnsmessage.ClassINET {
			list = append(list, r)
		}
	}
	return list
}

// ttlOf returns a TTL. One with the highest bit counts as 0: RFC 2181, section 8.
func ttlOf(seconds uint32) time.Duration {
	if seconds > 1<<31-1 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
