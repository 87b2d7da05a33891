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

// A peer that sends an answer in small parts, each of which is searched, cannot make its expression
// read more.
func TestAnExpressionReadsNoMoreThanItMay(t *testing.T) {
	const most = 1000
	answers := make(chan string, 1)
	address := serveRaw(t, func(c net.Conn) {
		for _, b := range []byte(<-answers) {
			c.Write([]byte{b})
		}
		io.Copy(io.Discard, c) // its end would end the check
	})
	o := TCPOptions{Expect: Expectation{Regexp: regexp.MustCompile("z$"), RegexpBytes: most, Within: most + 1}}
	answers <- strings.Repeat("a", most+1)
	verify.Equal(t, check(t, NewTCP(o), address, patience), errTooLong.Error(), "many parts")

	s := search{Expectation: o.Expect}
	n, err := 0, error(nil)
	for ; err != errTooLong; n++ {
		err = s.check(make([]byte, n))
	}
	verify.That(t, n > 1 && n*(n-1)/2 > most && (n-1)*(n-2)/2 <= most, "the answer of %d bytes is the first that is not read", n-1)

	// A text is searched in what is new, with its start.
	s = search{Expectation: Expectation{Text: "abc"}}
	verify.That(t, s.check([]byte("xab")) != nil && s.check([]byte("xabc")) == nil && s.check([]byte("xabcd")) == nil, "a text in two parts")
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
