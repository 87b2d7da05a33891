package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"

	"sluice/observe/wake"
	"sluice/proxy/packets"
	"sluice/test/verify"
)

// A passedPort is the port of a listener with HTTP/3 that processes of a test have one after the
// other. The socket of UDP passes to the next one as it does between real ones; each has its own of
// TCP, at another port than its address says.
type passedPort struct {
	t       *testing.T
	address *net.TCPAddr

	mu sync.Mutex
	// mu guards the fields below.
	socket, next *packets.Socket // of the process that serves, and of one that begins
	offer        *packets.Offer  // of socket to next
	former       *packets.Socket // of a process that was replaced; nil: it has ended
	passed       int             // how often a process has taken over
	conns        []passedConn    // of the client
}

// A passedConn is a connection to the process that has served after so many others.
type passedConn struct {
	*quic.Conn
	passed int
}

func newPassedPort(t *testing.T) *passedPort {
	t.Helper()
	l := verify.Result(listenForHTTP3()).Must(t)
	defer l.Close()
	return &passedPort{t: t, address: l.Addr().(*net.TCPAddr)}
}

// elsewhere is a listener at another port than it says.
type elsewhere struct {
	*net.TCPListener
	address net.Addr
}

func (l elsewhere) Addr() net.Addr { return l.address }

// listen is Options.Listen.
func (p *passedPort) listen(name, network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if name == "secure" && err == nil {
		l = elsewhere{l.(*net.TCPListener), p.address}
	}
	return l, err
}

// listenPacket is Options.ListenPacket.
func (p *passedPort) listenPacket(name, address string) (s *packets.Socket, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socket == nil {
		p.socket, err = openPacket(name, address)
		return p.socket, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, err
	}
	inherited, err := unix.Dup(fds[1])
	if err != nil {
		return nil, err
	}
	if p.offer, err = p.socket.Offer(os.NewFile(uintptr(fds[0]), "own"), os.NewFile(uintptr(fds[1]), "other")); err != nil {
		return nil, err
	}
	p.next, err = packets.Inherit(os.NewFile(uintptr(inherited), "inherited"))
	return p.next, err
}

// releasePacket is Options.ReleasePacket.
func (p *passedPort) releasePacket(s *packets.Socket) {
	_ = s.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.former == s {
		p.former = nil
	}
}

// isFree reports whether a new process may get the socket: two have it at most.
func (p *passedPort) isFree() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.former == nil
}

// pass makes the next process the one that serves, or lets the socket stay where it is.
func (p *passedPort) pass(serves bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.offer == nil:
	case serves:
		p.offer.Accepted()
		p.former, p.socket = p.socket, p.next
		p.passed++
	default:
		p.offer.Withdraw()
	}
	p.offer, p.next = nil, nil
}

// dial connects the client to the process that serves.
func (p *passedPort) dial(ctx context.Context, config *quic.Config) (*quic.Conn, error) {
	for {
		before := p.takeovers()
		conn, err := dialHTTP3(ctx, net.IPv4(127, 0, 0, 1), p.address, &tls.Config{InsecureSkipVerify: true, ServerName: "a.example.com"}, config)
		if err != nil || p.remembers(conn, before) {
			return conn, err
		}
		conn.CloseWithError(0, "it may be either process's")
	}
}

func (p *passedPort) takeovers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed
}

// remembers adds a connection, unless another process has taken over since before.
func (p *passedPort) remembers(conn *quic.Conn, before int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passed != before {
		return false
	}
	p.conns = append(p.conns, passedConn{conn, before})
	return true
}

// left reports whether the client has left the processes that have served before.
func (p *passedPort) left() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if c.passed != p.passed && !wake.Closed(c.Context().Done()) {
			return false
		}
	}
	return true
}
