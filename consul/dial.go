package consul

import (
	"context"
	"net"
	"time"
)

// WithDial returns o with a dial function in place of the network, for tests with
// Consul in memory, such as discoverytest.ServePipe.
func (o Options) WithDial(dial func(ctx context.Context, network, address string) (net.Conn, error)) Options {
	o.dial = dial
	return o
}

// WithReturnAfter returns o with another time for which a preferred agent must be
// healthy before it is used again (default 10 s and more), for tests.
func (o Options) WithReturnAfter(returnAfter time.Duration) Options {
	o.returnAfter = returnAfter
	return o
}

// WithAnswerGrace returns o with another time in which an answer may arrive after the wait of its
// query (default 10 s), for tests.
func (o Options) WithAnswerGrace(grace time.Duration) Options {
	o.answerGrace = grace
	return o
}
