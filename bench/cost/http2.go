//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// http2Conn writes what belongs together at once: what it frames waits in out for flush.
type http2Conn struct {
	net.Conn
	out     bytes.Buffer
	block   bytes.Buffer
	framer  *http2.Framer
	encoder *hpack.Encoder
}

func newHTTP2Conn(conn net.Conn) *http2Conn {
	c := &http2Conn{Conn: conn}
	c.framer = http2.NewFramer(&c.out, conn)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.block)
	return c
}

// flush writes what is framed.
func (c *http2Conn) flush() error {
	_, err := c.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

// headers frames fields, names and values in turn.
func (c *http2Conn) headers(stream uint32, end bool, fields ...string) error {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if err := c.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.block.Bytes(), EndHeaders: true, EndStream: end})
}

// next returns the next frame of a stream, and frames what the others ask for: it goes with the
// next flush.
func (c *http2Conn) next() (http2.Frame, error) {
	for {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = c.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				if err = c.framer.WritePing(true, f.Data); err == nil {
					err = c.flush()
				}
			}
		case *http2.GoAwayFrame:
			return nil, fmt.Errorf("GOAWAY with %v", f.ErrCode)
		case *http2.RSTStreamFrame:
			return nil, fmt.Errorf("RST_STREAM with %v", f.ErrCode)
		case *http2.DataFrame:
			if n := len(f.Data()); n > 0 {
				err = c.framer.WriteWindowUpdate(0, uint32(n))
			}
			return f, err
		case *http2.MetaHeadersFrame:
			return f, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// http2Client sends one request at a time.
type http2Client struct {
	*http2Conn
	work   work
	stream uint32
}

func dialHTTP2(address string, w work) (*http2Client, error) {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	if w.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // the certificate is new with each run
	}
	c := &http2Client{http2Conn: newHTTP2Conn(conn), work: w, stream: 1}
	c.out.WriteString(http2.ClientPreface)
	return c, c.framer.WriteSettings()
}

func (c *http2Client) exchange() error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	fields := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/some/path"}
	if c.work.grpc {
		fields[1] = "POST"
		fields = append(fields, "content-type", "application/grpc", "te", "trailers")
	}
	if err := c.headers(c.stream, c.work.body == 0, fields...); err != nil {
		return err
	}
	if c.work.body > 0 {
		if err := c.framer.WriteData(c.stream, true, grpcMessage(c.work.body)); err != nil {
			return err
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	defer func() { c.stream += 2 }()
	status, received := "", 0
	for {
		f, err := c.next()
		if err != nil {
			return err
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			ended = f.StreamEnded()
			if !ended {
				status = f.PseudoValue("status")
			}
		case *http2.DataFrame:
			received += len(f.Data())
			ended = f.StreamEnded()
		}
		if !ended {
			continue
		}
		if status != "200" || received != c.work.answerBytes() {
			return fmt.Errorf("answer %q with %d bytes, want 200 with %d", status, received, c.work.answerBytes())
		}
		return nil
	}
}

// grpcMessage returns a message of n bytes with its prefix: the compressed flag and the length of
// the rest.
func grpcMessage(n int) []byte {
	const prefix = 5
	message := make([]byte, n)
	binary.BigEndian.PutUint32(message[1:], uint32(n-prefix))
	return message
}

// serveGRPC answers each call of a connection with n bytes and trailers, in one write.
func serveGRPC(conn net.Conn, n int) {
	defer conn.Close()
	c := newHTTP2Conn(conn)
	if _, err := io.CopyN(io.Discard, conn, int64(len(http2.ClientPreface))); err != nil || c.framer.WriteSettings() != nil || c.flush() != nil {
		return
	}
	message := grpcMessage(n)
	for {
		f, err := c.next()
		if err != nil {
			return
		}
		if ender, ok := f.(interface{ StreamEnded() bool }); !ok || !ender.StreamEnded() {
			continue
		}
		stream := f.Header().StreamID
		if c.headers(stream, false, ":status", "200", "content-type", "application/grpc") != nil ||
			c.framer.WriteData(stream, false, message) != nil ||
			c.headers(stream, true, "grpc-status", "0") != nil || c.flush() != nil {
			return
		}
	}
}
