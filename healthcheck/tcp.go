package healthcheck

import (
	"context"
	"errors"
	"io"
	"net"

	"sluice/certificates"
)

// TCPOptions are the settings of a [TCP] probe.
type TCPOptions struct {
	Send   []byte                // sent once connected
	Expect Expectation           // of what the peer sends
	TLS    certificates.Security // as HTTPOptions.TLS; nil: plain TCP
}

// TCP is a [Probe] that connects, and optionally sends bytes and checks the answer.
type TCP struct {
	o      TCPOptions
	dialer dialer
}

func NewTCP(o TCPOptions) *TCP { return &TCP{o: o, dialer: dialer{tls: o.TLS}} }

func (t *TCP) String() string {
	if t.o.TLS != nil {
		return "tls"
	}
	return "tcp"
}

func (t *TCP) Forget(string) {}
func (t *TCP) Close()        {}

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

// await reads until the expected bytes have arrived, or cannot arrive any more.
func (t *TCP) await(connection net.Conn) error {
	answer, expected := make([]byte, 0, min(t.o.Expect.Within, 4<<10)), search{Expectation: t.o.Expect}
	for {
		if len(answer) == cap(answer) {
			answer = append(answer, 0)[:len(answer)]
		}
		n, err := connection.Read(answer[len(answer):min(cap(answer), t.o.Expect.Within)])
		answer = answer[:len(answer)+n]
		missing := expected.check(answer)
		switch {
		case missing == nil:
			return nil
		case errors.Is(err, io.EOF), missing == errTooLong, len(answer) >= t.o.Expect.Within:
			return missing
		case err != nil && len(answer) > 0:
			return missing
		case err != nil:
			return failure("answer", err)
		}
	}
}
