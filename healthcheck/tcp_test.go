package healthcheck

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

func TestTCP(t *testing.T) {
	echo := func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		if line == "PING\r\n" {
			io.WriteString(c, "+PO")
			time.Sleep(time.Millisecond)
			io.WriteString(c, "NG\r\n")
		}
	}
	silent := func(c net.Conn) { io.Copy(io.Discard, c) }
	for _, test := range []struct {
		name   string
		answer func(net.Conn)
		o      TCPOptions
		want   string
	}{
		{"connect", silent, TCPOptions{}, ""},
		{"send", silent, TCPOptions{Send: []byte("hello")}, ""},
		{"send and expect", echo, TCPOptions{Send: []byte("PING\r\n"), Expect: Expectation{Text: "+PONG", Within: 100}}, ""},
		{"regexp", echo, TCPOptions{Send: []byte("PING\r\n"), Expect: Expectation{Regexp: regexp.MustCompile(`^\+PONG\r\n$`), Within: 100}}, ""},
		{"another answer", echo, TCPOptions{Send: []byte("PING\r\n"), Expect: Expectation{Text: "+OK", Within: 100}}, `answer does not contain "+OK"`},
		{"no answer", echo, TCPOptions{Send: []byte("QUIT\r\n"), Expect: Expectation{Text: "+PONG", Within: 100}}, `answer does not contain "+PONG"`},
		{"too far", echo, TCPOptions{Send: []byte("PING\r\n"), Expect: Expectation{Text: "G", Within: 4}}, `answer does not contain "G"`},
		{"just within", echo, TCPOptions{Send: []byte("PING\r\n"), Expect: Expectation{Text: "G", Within: 5}}, ""},
		{"greeting", func(c net.Conn) { io.WriteString(c, "220 mail ready\r\n") }, TCPOptions{Expect: Expectation{Text: "220 ", Within: 100}}, ""},
		{"silence", silent, TCPOptions{Expect: Expectation{Text: "220 ", Within: 100}}, "answer: timed out"},
		{"TLS to a plain port", func(c net.Conn) {
			bufio.NewReader(c).ReadByte()
			c.(*net.TCPConn).SetLinger(0)
		}, TCPOptions{TLS: fixed{&tls.Config{}}}, "TLS handshake: connection reset by peer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address := serveRaw(t, test.answer)
			if strings.HasSuffix(test.want, "timed out") {
				checkInTime(t, NewTCP(test.o), address, test.want)
			} else if got := check(t, NewTCP(test.o), address, patience); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	verify.Equal(t, check(t, NewTCP(TCPOptions{}), nowhere, patience), "connect: connection refused", "result")
	verify.Slices(t, []string{NewTCP(TCPOptions{}).String(), NewTCP(TCPOptions{TLS: fixed{&tls.Config{}}}).String()}, []string{"tcp", "tls"}, "names")
}

func TestTCPReadsALargeAnswer(t *testing.T) {
	address := serveRaw(t, func(c net.Conn) {
		for range 20 {
			fmt.Fprintf(c, "%05000d", 0)
		}
		io.WriteString(c, "end")
	})
	probe := NewTCP(TCPOptions{Expect: Expectation{Text: "end", Within: 1 << 20}})
	verify.Equal(t, check(t, probe, address, patience), "", "check")
}
