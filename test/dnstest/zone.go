package dnstest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/test/verify"
)

// The key of changes, by its name, and as the file of a key has it.
const (
	keyName   = "sluice."
	keySecret = "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG8="
	// UpdateKey is what the file of the key has that [Zones] accept.
	UpdateKey = "key \"sluice\" {\n\talgorithm hmac-sha256;\n\tsecret \"" + keySecret + "\";\n};\n"
)

// Zones are zones that one server has, on a loopback address, with UDP and TCP. They take changes
// of TXT records as in RFC 2136 with [UpdateKey], and from files: Directory/NAME./VALUE is a TXT
// record. Each other name has the address 127.0.0.1. Methods may be called concurrently.
type Zones struct {
	Address   string // "127.0.0.1:port"
	Directory string

	names   []string // "example."
	serving []*dns.Server
	ended   sync.WaitGroup

	mu sync.Mutex
	// mu guards the fields below.
	texts   map[string][]string // by name with a dot at its end
	aliases map[string]string
	frozen  bool
	refuses bool
	hidden  int // how many more questions for a TXT record are answered as if it were not there
	changes int
	asked   int // questions for TXT records
	servers []string
}

// StartZones serves zones until t ends.
func StartZones(t testing.TB, names ...string) *Zones {
	t.Helper()
	z := verify.Result(ServeZones(t.TempDir(), names...)).Must(t)
	t.Cleanup(func() { z.Close() })
	return z
}

// ServeZones serves zones, with their files in a directory, until Close.
func ServeZones(directory string, names ...string) (*Zones, error) {
	z := &Zones{Directory: directory, texts: make(map[string][]string), aliases: make(map[string]string)}
	for _, name := range names {
		z.names = append(z.names, dns.Fqdn(name))
	}
	stream, packets, err := listenBoth()
	if err != nil {
		return nil, err
	}
	z.Address = stream.Addr().String()
	z.serving = []*dns.Server{{Listener: stream}, {PacketConn: packets}}
	for _, server := range z.serving {
		server.Handler, server.TsigSecret = dns.HandlerFunc(z.serve), map[string]string{keyName: keySecret}
		server.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		z.ended.Go(func() { _ = server.ActivateAndServe() }) // it ends with Shutdown
		<-started
	}
	return z, nil
}

// Close ends the server.
func (z *Zones) Close() (err error) {
	for _, server := range z.serving {
		err = errors.Join(err, server.Shutdown())
	}
	z.ended.Wait()
	return err
}

// listenBoth returns sockets with one port for both protocols.
func listenBoth() (net.Listener, net.PacketConn, error) {
	for {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		if p, err := net.ListenPacket("udp4", l.Addr().String()); err == nil {
			return l, p, nil
		}
		l.Close() // the port is taken
	}
}

// Alias makes a name an alias of another one.
func (z *Zones) Alias(name, target string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.aliases[dns.Fqdn(name)] = dns.Fqdn(target)
}

// Freeze makes the server leave all questions and changes without an answer, or ends that.
func (z *Zones) Freeze(frozen bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.frozen = frozen
}

// Refuse makes the server refuse changes, or ends that.
func (z *Zones) Refuse(refuses bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.refuses = refuses
}

// Hide hides all TXT records from that many questions.
func (z *Zones) Hide(questions int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.hidden = questions
}

// Plain makes the server one that has no zone, such as a resolver: it knows the name servers of all
// zones, and that is all.
func (z *Zones) Plain(servers ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.servers = servers
}

// Counts returns how many changes were made by RFC 2136, and how many questions for TXT records
// there were.
func (z *Zones) Counts() (changes, asked int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.changes, z.asked
}

// Texts returns the TXT records of a name.
func (z *Zones) Texts(name string) []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.textsLocked(dns.Fqdn(strings.ToLower(name)))
}

func (z *Zones) textsLocked(name string) []string {
	all := slices.Clone(z.texts[name])
	entries, _ := os.ReadDir(filepath.Join(z.Directory, name)) // most names have no directory
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// Left returns the names that have TXT records.
func (z *Zones) Left() (names []string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for name, values := range z.texts {
		if len(values) > 0 {
			names = append(names, name)
		}
	}
	directories, _ := filepath.Glob(filepath.Join(z.Directory, "*.", "*"))
	for _, file := range directories {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names
}

// zoneOf returns the zone of a name; "": none.
func (z *Zones) zoneOf(name string) string {
	at := slices.IndexFunc(z.names, func(zone string) bool { return dns.IsSubDomain(zone, name) })
	if at < 0 {
		return ""
	}
	return z.names[at]
}

func (z *Zones) serve(w dns.ResponseWriter, question *dns.Msg) {
	z.mu.Lock()
	answer := z.answerLocked(w, question)
	z.mu.Unlock()
	if answer != nil {
		_ = w.WriteMsg(answer) // the client may be gone
	}
}

func (z *Zones) answerLocked(w dns.ResponseWriter, question *dns.Msg) *dns.Msg {
	answer := new(dns.Msg)
	answer.SetReply(question)
	if z.frozen || len(question.Question) != 1 {
		return nil
	}
	name := strings.ToLower(question.Question[0].Name)
	zone := z.zoneOf(name)
	if zone == "" {
		answer.Rcode = dns.RcodeRefused
		return answer
	}
	answer.Authoritative, answer.RecursionAvailable = len(z.servers) == 0, true
	if question.Opcode == dns.OpcodeUpdate {
		z.changeLocked(w, question, answer)
		return answer
	}
	soa := &dns.SOA{
		Hdr: dns.RR_Header{Name: zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 1},
		Ns:  "ns." + zone, Mbox: "admin." + zone, Serial: 1, Refresh: 60, Retry: 60, Expire: 60, Minttl: 1,
	}
	for alias := z.aliases[name]; alias != ""; alias = z.aliases[name] {
		answer.Answer = append(answer.Answer, &dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: alias})
		if question.Question[0].Qtype == dns.TypeCNAME {
			return answer
		}
		name = alias
	}
	switch question.Question[0].Qtype {
	case dns.TypeA:
		answer.Answer = append(answer.Answer, &dns.A{Hdr: header(name, dns.TypeA), A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeNS:
		for _, server := range z.servers {
			answer.Answer = append(answer.Answer, &dns.NS{Hdr: header(name, dns.TypeNS), Ns: dns.Fqdn(server)})
		}
	case dns.TypeTXT:
		z.asked++
		if z.hidden > 0 {
			z.hidden--
			break
		}
		for _, text := range z.textsLocked(name) {
			answer.Answer = append(answer.Answer, &dns.TXT{Hdr: header(name, dns.TypeTXT), Txt: []string{text}})
		}
	case dns.TypeSOA:
		if name == zone {
			answer.Answer = append(answer.Answer, soa)
		}
	}
	if len(answer.Answer) == 0 {
		answer.Ns = append(answer.Ns, soa)
	}
	return answer
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: 1}
}

// changeLocked makes the changes of a message: RFC 2136, section 2.5.
func (z *Zones) changeLocked(w dns.ResponseWriter, question, answer *dns.Msg) {
	if question.IsTsig() == nil || w.TsigStatus() != nil || z.refuses {
		answer.Rcode = dns.RcodeRefused
		return
	}
	answer.SetTsig(keyName, dns.HmacSHA256, 300, time.Now().Unix())
	z.changes++
	for _, rr := range question.Ns {
		text, ok := rr.(*dns.TXT)
		if !ok {
			answer.Rcode = dns.RcodeNotImplemented
			return
		}
		name, value := strings.ToLower(text.Hdr.Name), strings.Join(text.Txt, "")
		z.texts[name] = slices.DeleteFunc(z.texts[name], func(have string) bool { return have == value })
		if text.Hdr.Class == dns.ClassINET {
			z.texts[name] = append(z.texts[name], value)
		}
	}
}
