// Package dnstest is a DNS server for tests, in memory or on a loopback address.
package dnstest

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/test/verify"
)

// Server answers from a zone. Its methods may be called concurrently.
type Server struct {
	mu      sync.Mutex // guards the fields below
	zone    map[key][]dnsmessage.Resource
	change  func(*dnsmessage.Message) []byte // of answers; nil: none
	silent  bool
	delay   time.Duration
	noTCP   bool
	queries map[string]int        // by network
	open    map[net.Conn]struct{} // TCP
	opened  int
}

type key struct {
	name string
	kind dnsmessage.Type
}

// New returns a server with an empty zone: it answers NXDOMAIN.
func New() *Server {
	return &Server{zone: make(map[key][]dnsmessage.Resource), queries: make(map[string]int), open: make(map[net.Conn]struct{})}
}

// Record is a record of a zone. An address of the name "glue.NAME" is in the additional section
// of answers with the target NAME.
type Record struct {
	Name, Target           string // absolute, without the dot at the end
	Address                string // of an A or AAAA record
	TTL                    uint32 // seconds
	Priority, Weight, Port uint16 // of an SRV record
	Alias                  bool   // a CNAME record
}

func (r *Record) resource() dnsmessage.Resource {
	h := dnsmessage.ResourceHeader{Name: absolute(r.Name), Class: dnsmessage.ClassINET, TTL: r.TTL}
	switch address, err := netip.ParseAddr(r.Address); {
	case err == nil && address.Is4():
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: address.As4()}}
	case err == nil:
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: address.As16()}}
	case r.Alias:
		return dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: absolute(r.Target)}}
	}
	return dnsmessage.Resource{Header: h, Body: &dnsmessage.SRVResource{Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: absolute(r.Target)}}
}

func absolute(name string) dnsmessage.Name {
	return dnsmessage.MustNewName(strings.TrimSuffix(name, ".") + ".")
}

func kindOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch body.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME
	}
	return dnsmessage.TypeSRV
}

// Set replaces the zone.
func (s *Server) Set(records ...Record) {
	zone := make(map[key][]dnsmessage.Resource)
	for _, r := range records {
		resource := r.resource()
		k := key{strings.ToLower(resource.Header.Name.String()), kindOf(resource.Body)}
		zone[k] = append(zone[k], resource)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = zone
}

// Change replaces the bytes of answers by those that change returns; nil: no answer. A nil
// change ends this.
func (s *Server) Change(change func(*dnsmessage.Message) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.change = change
}

// Fail makes all answers have a result code, without records.
func (s *Server) Fail(code dnsmessage.RCode) {
	s.Change(func(m *dnsmessage.Message) []byte {
		bytes, _ := (&dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RCode: code}, Questions: m.Questions}).Pack()
		return bytes
	})
}

// Freeze makes the server leave queries without an answer, or ends that.
func (s *Server) Freeze(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
}

// Delay delays the answers.
func (s *Server) Delay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// RefuseTCP makes the server refuse TCP connections from now on.
func (s *Server) RefuseTCP() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noTCP = true
}

// Disconnect ends the TCP connections.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

// Queries returns the number of queries over a network, "tcp" or "udp", and of TCP connections
// that were opened.
func (s *Server) Queries(network string) (queries, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queries[network], s.opened
}

// Dial connects to the server in memory. It has the signature of net.Dialer.DialContext.
func (s *Server) Dial(_ context.Context, network, _ string) (net.Conn, error) {
	s.mu.Lock()
	refused := s.noTCP && network == "tcp"
	s.mu.Unlock()
	if refused {
		return nil, syscall.ECONNREFUSED
	}
	client, conn := net.Pipe()
	if network == "tcp" {
		go s.serveTCP(conn)
	} else {
		go s.serveUDP(conn)
	}
	return client, nil
}

// Listen serves TCP on a loopback address, which it returns, until t ends.
func (s *Server) Listen(t testing.TB) string {
	l := verify.Result(net.Listen("tcp4", "127.0.0.1:0")).Must(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serveTCP(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.Disconnect()
		serving.Wait()
	})
	return l.Addr().String()
}

// serveTCP answers the queries of a connection until it is closed.
func (s *Server) serveTCP(conn net.Conn) {
	defer conn.Close()
	s.mu.Lock()
	s.open[conn] = struct{}{}
	s.opened++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.open, conn)
	}()
	for {
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		if answer := s.answer("tcp", query); answer != nil {
			if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
				return
			}
		}
	}
}

// serveUDP answers the datagrams of a connection in memory until it is closed.
func (s *Server) serveUDP(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if answer := s.answer("udp", buffer[:n]); answer != nil {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // nobody may read it
			_, _ = conn.Write(answer)
		}
	}
}

// answer returns the answer to a query, or nil.
func (s *Server) answer(network string, query []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(query) != nil || len(m.Questions) != 1 {
		return nil
	}
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	time.Sleep(delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries[network]++
	if s.silent {
		return nil
	}
	q := m.Questions[0]
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: m.RecursionDesired}, Questions: m.Questions}
	name := strings.ToLower(q.Name.String())
	answer.Answers = append(answer.Answers, s.zone[key{name, q.Type}]...)
	if alias := s.zone[key{name, dnsmessage.TypeCNAME}]; q.Type != dnsmessage.TypeCNAME {
		answer.Answers = append(answer.Answers, alias...)
	}
	for _, r := range answer.Answers {
		if srv, ok := r.Body.(*dnsmessage.SRVResource); ok {
			target := strings.ToLower(srv.Target.String())
			answer.Additionals = append(answer.Additionals, s.zone[key{"glue." + target, dnsmessage.TypeA}]...)
		}
	}
	for i := range answer.Additionals {
		answer.Additionals[i].Header.Name = dnsmessage.MustNewName(strings.TrimPrefix(answer.Additionals[i].Header.Name.String(), "glue."))
	}
	if len(answer.Answers) == 0 {
		answer.RCode = dnsmessage.RCodeNameError
		for k := range s.zone {
			if k.name == name {
				answer.RCode = dnsmessage.RCodeSuccess
			}
		}
		answer.Authorities = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: absolute("example"), Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.SOAResource{NS: absolute("ns.example"), MBox: absolute("admin.example")},
		}}
	}
	if s.change != nil {
		return s.change(&answer)
	}
	bytes, err := answer.Pack()
	if err != nil {
		panic(err) // a record of the test is not valid
	}
	return bytes
}
