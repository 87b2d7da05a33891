package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"
)

// TCPOptions are the settings of a [TCP] probe.
type TCPOptions struct {
	Send   []byte      // sent once connected
	Expect Expectation // what the peer must send, by itself or for Send
	TLS    *TLS        // nil: plain TCP
}

// TCP connects, and may say something and look at the answer.
type TCP struct {
	o      TCPOptions
	dialer dialer
}

// NewTCP returns a probe with the options o.
func NewTCP(o TCPOptions) *TCP { return &TCP{o: o, dialer: dialer{tls: o.TLS}} }

func (t *TCP) String() string {
	if t.o.TLS != nil {
		return "tls"
	}
	return "tcp"
}

// Forget does nothing: no connection is kept.
func (t *TCP) Forget(string) {}

// Close does nothing: no connection is kept.
func (t *TCP) Close() {}

// Check connects to the target.
func (t *TCP) Check(ctx context.Context, target Target) error {
	connection, err := t.dialer.dial(ctx, target)
	if err != nil {
		return err
	}
	defer connection.Close()
	defer bound(ctx, connection)()
	if len(t.o.Send) > 0 {
		if _, err := connection.Write(t.o.Send); err != nil {
			return failure("send", err)
		}
	}
	if t.o.Expect.empty() {
		return nil
	}
	return t.await(connection)
}

// await reads until what is expected is there, or cannot come any more.
func (t *TCP) await(connection net.Conn) error {
	answer := make([]byte, 0, min(t.o.Expect.Within, 4<<10))
	for {
		if len(answer) == cap(answer) {
			answer = append(answer, 0)[:len(answer)]
		}
		n, err := connection.Read(answer[len(answer):min(cap(answer), t.o.Expect.Within)])
		answer = answer[:len(answer)+n]
		missing := t.o.Expect.check(answer)
		switch {
		case missing == nil:
			return nil
		case errors.Is(err, io.EOF), len(answer) >= t.o.Expect.Within:
			return missing
		case err != nil && len(answer) > 0:
			return missing // as far as it came
		case err != nil:
			return failure("answer", err)
		}
	}
}
