package upstream

import (
	"context"
	"net"

	"sluice/observe/panics"
)

// A life is the time until a peer's transport is closed. Nothing may come to the peer
// afterwards: it may no longer lead. A dial ends with it, so that the request finds another
// peer at once.
type life struct {
	over context.Context
	end  context.CancelFunc
}

func newLife() (l life) {
	l.over, l.end = context.WithCancel(context.Background())
	return l
}

// during returns ctx for a dial, which ends with l too. end takes the error of the dial, and
// returns it, or [net.ErrClosed] if the transport was closed: that is no failure of the peer.
func (l *life) during(ctx context.Context) (_ context.Context, end func(error) error) {
	ctx, cancel := context.WithCancelCause(ctx)
	if l.over.Err() != nil { // since the peer was picked
		cancel(net.ErrClosed)
	}
	stop := context.AfterFunc(l.over, func() {
		defer panics.Contain(panics.Peer, nil)
		cancel(net.ErrClosed)
	})
	return ctx, func(err error) error {
		stop()
		cancel(nil)
		if err != nil && l.over.Err() != nil {
			return net.ErrClosed
		}
		return err
	}
}
