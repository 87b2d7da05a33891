package proxy

import (
	"errors"

	"sluice/balancer"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/route"
)

// receiveTunnel forwards the 101 response, whose head is x.out, and then all bytes in both
// directions until the tunnel ends. It closes u.
func (x *httpExchange) receiveTunnel(u upstream) balancer.Outcome {
	defer x.finish(u, false)
	up, late := u.tunnel(&x.Buffers)
	t := socket.Tunnel{
		Up: up, Sweeper: x.client.server.sweeper, Timeouts: tunnelTimeouts(x.service.Timeouts),
		Requests: x.service.Pool.Requests(), Shard: x.client.shard,
	}
	t.Client = x.client.downstream.tunnel(&t)
	outcome := balancer.Outcome{Class: balancer.OutcomeOK, Status: x.response.Status, Latency: x.upstreamTime - x.picked.Sub(x.startTime)}
	x.status = x.response.Status
	early := x.in[x.start+x.headLength : x.end]
	x.bodyLength = len(early)
	if x.toClient(transfer.Piece{Text: late}) != nil {
		return outcome
	}
	x.bytesOut, x.counted = int64(len(late)), true
	if noted := x.tried.of(x.token.Peer); noted != nil {
		noted.connect, noted.status = x.connectTime, x.upstreamStatus
	}
	x.record(x.upstreamTime) // of the handshake
	t.Requests.Transfer(t.Shard, 0, x.bytesOut)
	x.GiveBack()
	if cut := t.Run(early, &x.bytesIn, &x.bytesOut); cut != nil {
		x.interrupted = cutReason(cut)
		x.client.downstream.cut()
	}
	return outcome
}

// cutReason returns why a tunnel ended before both sides had closed their sending
// sides; cut is the result of run. "": it did not.
func cutReason(cut error) string {
	var broken socket.BrokenEnd
	switch {
	case cut == nil:
		return ""
	case cut == socket.ErrIdle:
		return "idle_timeout"
	case cut == errPanicked:
		return refusal.Internal.Reason
	case !errors.As(cut, &broken):
		return "drain_timeout"
	case broken.Client:
		return "client_gone"
	}
	return "upstream_reset"
}

// tunnelTimeouts returns the idle timeouts of the tunnels of a service.
func tunnelTimeouts(t route.Timeouts) socket.IdleTimeouts {
	return socket.IdleTimeouts{Open: t.Tunnel, HalfClosed: min(t.Tunnel, t.Idle)}
}
