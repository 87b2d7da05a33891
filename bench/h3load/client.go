package h3load

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

// Codes of errors (RFC 9114, section 8.1).
const (
	noError          = 0x100
	requestCancelled = 0x10c
)

// Types of unidirectional streams (RFC 9114, section 6.2, and RFC 9204, section 4.2).
const (
	streamControl = 0x0
	streamEncoder = 0x2
	streamDecoder = 0x3
)

var tlsConfig = &tls.Config{
	ServerName: "localhost", InsecureSkipVerify: true, // it would cost the load's CPU only
	NextProtos: []string{"h3"}, CurvePreferences: []tls.CurveID{tls.X25519},
}

// idleTimeout is longer than servers keep idle connections.
const idleTimeout = time.Hour

var quicConfig = &quic.Config{HandshakeIdleTimeout: patience, MaxIdleTimeout: idleTimeout}

// A client is a UDP socket with which connections are opened.
type client struct {
	socket    *net.UDPConn
	transport *quic.Transport
	server    *net.UDPAddr
}

// newClient returns a client with the IP address from. The caller must close it.
func newClient(from net.IP, server string) (*client, error) {
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		return nil, err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: from})
	if err != nil {
		return nil, err
	}
	return &client{socket: socket, transport: &quic.Transport{Conn: socket}, server: to}, nil
}

// close ends all connections of c.
func (c *client) close() {
	_ = c.transport.Close()
	_ = c.socket.Close()
}

// dial opens a connection, and on it the streams that a browser opens.
func (c *client) dial(ctx context.Context) (*quic.Conn, error) {
	conn, err := c.transport.Dial(ctx, c.server, tlsConfig, quicConfig)
	if err != nil {
		return nil, err
	}
	// The frame SETTINGS is empty.
	for _, first := range [][]byte{{streamControl, 0x4, 0}, {streamEncoder}, {streamDecoder}} {
		s, err := conn.OpenUniStream()
		if err == nil {
			_, err = s.Write(first)
		}
		if err != nil {
			hangUp(conn)
			return nil, err
		}
	}
	return conn, nil
}

func hangUp(conn *quic.Conn) { _ = conn.CloseWithError(noError, "") }

// patience is how long a handshake or an answer may take. Long answers get more.
const patience = 10 * time.Second

// slowest is a rate in bytes per second: a slower answer is late.
const slowest = 4 << 20

// exchange sends r on a new stream, and reads the answer with the buffer of in.
func (r *request) exchange(conn *quic.Conn, in *bufio.Reader) error {
	limit := patience + time.Duration(r.body/slowest)*time.Second
	ctx, cancel := context.WithTimeout(conn.Context(), limit)
	defer cancel()
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if err := s.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := s.Write(r.frame); err != nil {
		return err
	}
	// A server that has answered may not want to see the end (RFC 9114, section 4.1.1). Then this
	// fails, and the answer is whole.
	_ = s.Close()
	in.Reset(s)
	if err := r.readAnswer(in); err != nil {
		s.CancelRead(requestCancelled)
		return err
	}
	return nil
}
