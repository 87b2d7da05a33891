package consultest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sluice/test/verify"
	"testing"
	"time"
)

// echo echoes each line until t ends.
func echo(t *testing.T) string {
	listener := verify.Result(net.Listen("tcp4", "127.0.0.1:0")).Must(t)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// say sends a line and returns the error of reading it back.
func say(conn net.Conn, wait time.Duration) error {
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(conn, "hello\n"); err != nil {
		return err
	}
	_, err := bufio.NewReader(conn).ReadString('\n')
	return err
}

func TestRelay(t *testing.T) {
	r := StartRelay(t, echo(t))
	dial := func() net.Conn {
		t.Helper()
		conn := verify.Result(net.Dial("tcp", r.Address())).Must(t)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	first := dial()
	verify.NoError(t, say(first, time.Minute))

	r.Hang()
	second := dial()
	for _, conn := range []net.Conn{first, second} {
		err := say(conn, 50*time.Millisecond)
		verify.That(t, errors.Is(err, os.ErrDeadlineExceeded), "a hanging relay: %v, want a timeout", err)
	}
	r.Heal()
	err := say(first, 50*time.Millisecond)
	verify.That(t, errors.Is(err, os.ErrDeadlineExceeded), "a connection that was half-open: %v, want a timeout", err)
	third := dial()
	verify.Succeeds(t, say(third, time.Minute))

	r.Cut()
	for _, conn := range []net.Conn{third, dial()} {
		err := say(conn, time.Minute)
		verify.That(t, err != nil && !errors.Is(err, os.ErrDeadlineExceeded), "a cut relay: %v, want a reset or the end", err)
	}
	r.Heal()
	verify.Succeeds(t, say(dial(), time.Minute))
}
