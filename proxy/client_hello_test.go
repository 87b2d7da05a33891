package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/route"
)

// clientHello returns what a client sends first.
func clientHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	hello := new(recorded)
	config.InsecureSkipVerify = true
	tls.Client(hello, config).Handshake() // fails
	return hello.sent.Bytes()
}

// inRecords returns the message of one record in records of size bytes.
func inRecords(record []byte, size int) (records []byte) {
	for message := record[recordHeaderBytes:]; len(message) > 0; {
		n := min(size, len(message))
		records = append(records, record[:3]...)
		records = binary.BigEndian.AppendUint16(records, uint16(n))
		records = append(records, message[:n]...)
		message = message[n:]
	}
	return records
}

func TestServerName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		config *tls.Config
	}{
		{"git.example.com", &tls.Config{ServerName: "git.example.com"}},
		{"", &tls.Config{}},
		{"old.example.com", &tls.Config{ServerName: "old.example.com", MaxVersion: tls.VersionTLS12}},
		{"long.example.com", &tls.Config{ServerName: "long.example.com", NextProtos: []string{strings.Repeat("x", 200), strings.Repeat("y", 200)}}},
	} {
		hello := clientHello(t, test.config)
		for _, b := range [][]byte{hello, inRecords(hello, 100), inRecords(hello, 3)} {
			for n := range len(b) {
				if whole, err := wholeClientHello(b[:n]); whole || err != nil {
					t.Fatalf("%s: the first %d of %d bytes: %v, %v", test.name, n, len(b), whole, err)
				}
			}
			if whole, err := wholeClientHello(append(b[:len(b):len(b)], "more"...)); !whole || err != nil {
				t.Errorf("%s: %v, %v, want the whole", test.name, whole, err)
			}
			if name, err := serverName(b); name != test.name || err != nil {
				t.Errorf("%s: got %q, %v", test.name, name, err)
			}
		}
	}
	for _, wrong := range []string{"GET / HTTP/1.1\r\n", "\x16\x02", "\x16\x03\x01\x00\x00", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x04\x02\x00\x00\x00"} {
		if whole, err := wholeClientHello([]byte(wrong)); whole || err != errNoTLS {
			t.Errorf("%q: %v, %v, want errNoTLS", wrong, whole, err)
		}
	}
}

// Whatever a client sends, nothing panics, and what is whole stays whole.
func FuzzClientHello(f *testing.F) {
	hello := clientHello(f, &tls.Config{ServerName: "a.example.com"})
	f.Add(hello)
	f.Add(inRecords(hello, 50))
	f.Add([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := wholeClientHello(b)
		if missing, _ := missingOfClientHello(b); err == nil && !whole && missing > 0 {
			if n := min(missing-1, 1<<20); n > 0 { // as many bytes are not enough, whatever they are
				if early, _ := wholeClientHello(append(b[:len(b):len(b)], make([]byte, n)...)); early {
					t.Fatalf("whole with %d bytes more, not %d", n, missing)
				}
			}
		}
		if !whole {
			return
		}
		if again, _ := wholeClientHello(append(b[:len(b):len(b)], 0)); !again || err != nil {
			t.Fatalf("%v with one byte more, %v", again, err)
		}
		serverName(b)
	})
}

// tlsOrigin is a server of TLS with the certificate of tests, which tells its name.
func tlsOrigin(t *testing.T, name string, config *tls.Config) *origin {
	return startOrigin(t, func(c *originConn) bool {
		conn := tls.Server(bufferedConn{c}, config)
		io.WriteString(conn, name)
		conn.CloseWrite()
		io.Copy(io.Discard, conn)
		return false
	})
}

// bufferedConn reads from the origin's reader.
type bufferedConn struct{ *originConn }

func (c bufferedConn) Read(b []byte) (int, error) { return c.originConn.Read(b) }

func TestStreamsByServerName(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{certificate()}}
	p := startProxy(t, Options{Timeouts: Timeouts{Head: 2 * time.Second}}, tlsOrigin(t, "git", config).address())
	git := p.service
	other := newUnmanagedProxy(t, Options{}, tlsOrigin(t, "other", config).address())
	t.Cleanup(func() {
		other.Shutdown(t.Context(), 0)
		other.pool.Close()
	})
	names, err := route.NewTable([]route.Route{{Host: "git.example.com", Path: "/", Service: git}, {Host: "*.git.example.com", Path: "/", Service: git}})
	if err != nil {
		t.Fatal(err)
	}
	var streams atomic.Pointer[Streams]
	streams.Store(&Streams{Names: names, Other: &route.Route{Service: other.service}})
	p.serveProxies(ListenerOptions{Streams: streams.Load})
	dial := func(name string) (string, error) {
		conn := p.stream()
		io.WriteString(conn, "PROXY UNKNOWN\r\n")
		secure := tls.Client(conn, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		got, err := io.ReadAll(secure)
		return string(got), err
	}
	for name, want := range map[string]string{"git.example.com": "git", "GIT.example.com": "git", "a.git.example.com": "git", "x.example.com": "other", "": "other"} {
		if got, err := dial(name); got != want || err != nil {
			t.Errorf("%q: got %q, %v, want %q", name, got, err, want)
		}
	}
	streams.Store(&Streams{Names: names})
	if got, err := dial("x.example.com"); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("without a service: got %q, %v, want the alert", got, err)
	}
	for _, sent := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01"} { // no TLS, and too slow
		conn := p.stream()
		io.WriteString(conn, "PROXY UNKNOWN\r\n"+sent)
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%q: got %q", sent, got)
		}
	}
	eventually(t, "all are counted", func() bool {
		s := p.Unrouted().Snapshot()
		return s.Total() == 3
	})
}
