package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// serverTimeout limits a query to one server.
	serverTimeout = 2 * time.Second
	// resendAfter is when a datagram is sent again: it may be lost.
	resendAfter = 700 * time.Millisecond
	// wholeBytes is the size of a datagram up to which it has all records: a server that
	// leaves out records fills most of it.
	wholeBytes       = datagramBytes * 2 / 3
	wholeStreamBytes = 63 << 10 // the same for TCP
)

// dialer opens a connection: net.Dialer.DialContext, or a test's.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// server is a DNS server. It is not safe for concurrent use.
type server struct {
	address string
	dial    dialer
	timeout time.Duration // of a query

	kept     net.Conn  // TCP; nil: none
	failedAt time.Time // of the last query; zero: it was answered
}

// ask sends a query, and waits for the answer for at most its timeout.
func (s *server) ask(ctx context.Context, q question) (*reply, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("no answer within %v", s.timeout))
	defer cancel()
	r, err := s.askTCP(ctx, q)
	if errors.Is(err, syscall.ECONNREFUSED) {
		var datagram *reply
		if datagram, err = s.askUDP(ctx, q); err == nil {
			r = datagram
		} else {
			err = fmt.Errorf("TCP is refused, UDP: %w", err)
		}
	}
	if err == nil {
		return r, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("dns server %s: %w", s.address, err)
}

// askTCP uses the kept connection, or a new one. A server may close a connection without
// requests at any time, so a query on a kept one that is closed is sent again.
func (s *server) askTCP(ctx context.Context, q question) (*reply, error) {
	if s.kept != nil {
		r, err := s.exchange(ctx, q)
		if err == nil || !closedByServer(err) || ctx.Err() != nil {
			return r, err
		}
	}
	conn, err := s.dial(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	s.kept = conn
	return s.exchange(ctx, q)
}

// closedByServer reports whether err says that the other side has closed the connection.
func closedByServer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// exchange sends a query on the kept connection and reads its answer. After an error there is
// no kept connection: its next bytes may belong to this answer. Messages have their length
// before them: RFC 1035, section 4.2.2.
func (s *server) exchange(ctx context.Context, q question) (r *reply, err error) {
	defer interrupt(ctx, s.kept)()
	defer func() {
		if err != nil || ctx.Err() != nil {
			s.close()
		}
	}()
	id := uint16(rand.Uint32())
	message, err := q.pack(id, false)
	if err != nil {
		return nil, err
	}
	if _, err := s.kept.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(message))), message...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(s.kept, size[:]); err != nil {
		return nil, err
	}
	answer := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(s.kept, answer); err != nil {
		return nil, fmt.Errorf("the answer is cut: %w", err)
	}
	r, err = q.parse(answer, id)
	if err == nil {
		r.cut = r.mayBeCut || len(answer) > wholeStreamBytes || len(r.answers) >= wholeRecords(q.kind)
	}
	return r, err
}

// wholeRecords returns how many records Consul's server keeps over TCP (its trimTCPResponse).
func wholeRecords(kind dnsmessage.Type) int {
	if kind == dnsmessage.TypeSRV {
		return 1024
	}
	return 4096
}

// askUDP sends a query from a port of its own. Datagrams that are not its answer have no effect:
// they may be forged.
func (s *server) askUDP(ctx context.Context, q question) (*reply, error) {
	conn, err := s.dial(ctx, "udp", s.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	id := uint16(rand.Uint32())
	message, err := q.pack(id, true)
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, 64<<10)
	for {
		r, err := receive(ctx, conn, q, id, message, buffer)
		if !errors.Is(err, errNotReceived) || ctx.Err() != nil {
			return r, err
		}
	}
}

// errNotReceived: a datagram has no answer yet.
var errNotReceived = errors.New("no answer")

// receive sends message, and waits for its answer for at most resendAfter.
func receive(ctx context.Context, conn net.Conn, q question, id uint16, message, buffer []byte) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, resendAfter)
	defer cancel()
	defer interrupt(ctx, conn)()
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	for {
		n, err := conn.Read(buffer)
		if ctx.Err() != nil {
			return nil, errNotReceived
		}
		if err != nil {
			return nil, err
		}
		r, err := q.parse(buffer[:n], id)
		if errors.Is(err, errNotAnswer) {
			continue
		}
		if err == nil && n > wholeBytes {
			r.mayBeCut = true
		}
		return r, err
	}
}

// interrupt ends the reads and writes of conn when ctx ends, until the returned function is called.
func interrupt(ctx context.Context, conn net.Conn) (release func()) {
	_ = conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// close closes the kept connection.
func (s *server) close() {
	if s.kept != nil {
		_ = s.kept.Close()
		s.kept = nil
	}
}
