package upstream

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"sluice/certificates"
	"sluice/discovery"
)

// Intentions say whether the mesh lets sluice connect to instances. They are safe for concurrent
// use.
type Intentions interface {
	// Denial returns why it does not; nil: it does, or that is not known, or the instance is not in
	// a mesh.
	Denial(discovery.Instance) *discovery.Denial
	// AwaitDenial is Denial for an instance that has just rejected sluice's certificate: it may
	// wait shortly, until ctx ends, for the mesh to say why.
	AwaitDenial(context.Context, discovery.Instance) *discovery.Denial
}

// maxDenialWait bounds the context of [Intentions.AwaitDenial], which ends earlier by itself.
const maxDenialWait = time.Second

// Denial: see [Connector].
func (c *common) Denial(err error, waiting func(time.Duration) (context.Context, context.CancelFunc)) *discovery.Denial {
	if c.options.Intentions == nil {
		return nil
	}
	instance := c.peer.Instance()
	switch {
	case instance.Identity == "", !endedByPeer(err):
		return nil
	case rejects(err):
		ctx, end := waiting(maxDenialWait)
		defer end()
		return c.options.Intentions.AwaitDenial(ctx, instance)
	}
	return c.options.Intentions.Denial(instance)
}

// endedByPeer reports whether err may be what becomes of a connection that the mesh denies: the
// peer was reached, and has ended it, with TLS 1.2 in the handshake and with TLS 1.3 behind it, or
// Cut has. It has not hung.
func endedByPeer(err error) bool {
	var dialed *net.OpError
	var timed net.Error
	if lack := (certificates.LackError{}); errors.As(err, &lack) { // the handshake has not begun
		return false
	}
	return !(errors.As(err, &dialed) && dialed.Op == "dial") && !(errors.As(err, &timed) && timed.Timeout()) &&
		!errors.Is(err, context.Canceled)
}

// rejects reports whether err is an alert of a peer that does not accept sluice's certificate.
// Connect's own servers say so to a client that intentions deny. crypto/tls does not export its
// type.
func rejects(err error) bool {
	var alert *net.OpError
	if !errors.As(err, &alert) || alert.Op != "remote error" {
		return false
	}
	text := alert.Error()
	return strings.Contains(text, "bad certificate") || strings.Contains(text, "access denied")
}
