package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"

	"sluice/balancer"
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/proxy/socket"
	"sluice/proxy/transfer"
	"sluice/proxy/upstream"
	"sluice/route"
)

// asksForUpgrade reports whether the request asks for a protocol except HTTP.
func (x *request) asksForUpgrade() bool {
	return x.head.Upgrade && !x.head.HTTP10 && x.asksFor(func([]byte) bool { return true })
}

// asksFor reports whether the request asks for a protocol, except HTTP, that is wanted.
func (x *request) asksFor(wanted func(protocol []byte) bool) bool {
	for protocol := range x.head.Elements(x.bytes(), http1.NameUpgrade) {
		if !isHTTP(protocol) && wanted(protocol) {
			return true
		}
	}
	return false
}

// isHTTP reports whether protocol is any version of HTTP. An upgrade to HTTP is
// obsolete (RFC 9113, section 3.1), and sluice could not see the requests.
func isHTTP(protocol []byte) bool {
	name, _, _ := bytes.Cut(protocol, slash)
	return http1.EqualFold(name, "http") || len(name) >= 2 && http1.EqualFold(name[:2], "h2")
}

var slash = []byte("/")

// appendUpgrade appends the Upgrade and Connection fields. b is the request head.
func appendUpgrade(x *request, out, b []byte) []byte {
	separator := "Upgrade: "
	for protocol := range x.head.Elements(b, http1.NameUpgrade) {
		if !isHTTP(protocol) {
			out = append(out, separator...)
			out = append(out, protocol...)
			separator = ", "
		}
	}
	out = append(out, "\r\nConnection: Upgrade\r\n"...)
	if x.client.version.hasStreams() {
		out = http1.AppendLine(out, "Sec-WebSocket-Key: ", x.webSocketKey[:])
	}
	return out
}

// switches reports whether the response, with the head b, selects only protocols that
// the request asks for.
func (x *answer) switches(b []byte) bool {
	if !x.request.upgrade || !x.response.Upgrade {
		return false
	}
	agreed := false
	for protocol := range x.response.Elements(b, http1.NameUpgrade) {
		if agreed = x.request.asksFor(func(asked []byte) bool { return bytes.EqualFold(asked, protocol) }); !agreed {
			break
		}
	}
	// A peer that confirms the key that sluice sent has understood the request, and does not repeat
	// an earlier response.
	return agreed && (!x.request.client.version.hasStreams() || string(x.response.FindOther(b, webSocketAccept)) == x.request.webSocketKey.accept())
}

// Clients with HTTP/2 and HTTP/3 ask for WebSocket by an extended CONNECT (RFC 8441, RFC 9220),
// whose text is an HTTP/1.1 upgrade. The handshake of RFC 6455 is between sluice and the peer then.

const (
	webSocket       = "websocket"
	webSocketAccept = "sec-websocket-accept"
)

// errDeclined means that the peer does not switch to WebSocket, but answers with a
// status that says so in HTTP/2 (RFC 8441, section 5).
var errDeclined = errors.New("the peer answers a request for WebSocket with success, and does not switch")

// wouldOpen reports whether the client would take an answer with a status for an open WebSocket.
func (x *request) wouldOpen(status int) bool {
	return x.upgrade && x.client.version.hasStreams() && status < 300
}

// offerWebSocket prepares the request for WebSocket of a client with streams.
func offerWebSocket(x *request) error {
	if !http1.EqualFold(x.head.Find(x.in[x.start:x.end], http1.NameUpgrade), webSocket) {
		return http1.ErrProtocolRefused
	}
	x.webSocketKey = newWebSocketKey()
	return nil
}

// asksForWebSocket reports whether the request asks for WebSocket.
func (x *request) asksForWebSocket() bool {
	return x.upgrade && x.asksFor(func(protocol []byte) bool { return http1.EqualFold(protocol, webSocket) })
}

// A webSocketKey is the value of Sec-WebSocket-Key: 16 random bytes (RFC 6455, section
// 4.1).
type webSocketKey [24]byte

func newWebSocketKey() (key webSocketKey) {
	var nonce [16]byte
	rand.Read(nonce[:]) // it never fails
	base64.StdEncoding.Encode(key[:], nonce[:])
	return key
}

// accept returns the value of Sec-WebSocket-Accept by which a peer confirms the key.
func (key *webSocketKey) accept() string {
	sum := sha1.Sum(append(key[:], "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// receiveTunnel forwards the 101 response, whose head is x.out, and then all bytes in both
// directions until the tunnel ends. It closes u.
func (x *answer) receiveTunnel(u upstream.Conn) balancer.Outcome {
	if x.request.streaming && !x.body.upload.awaitEnd() { // the client may send nothing else before
		return x.receiveFailed(u, socket.ErrClosedEarly)
	}
	defer x.tries.finish(u, false)
	up, late := u.Tunnel(&x.body.buffers)
	t := socket.Tunnel{
		Up: up, Sweeper: x.request.client.server.sweeper, Timeouts: tunnelTimeouts(x.route.service.Timeouts),
		Requests: x.route.service.Pool.Requests, Shard: x.request.client.Shard,
	}
	var early []byte
	t.Client, early = x.request.client.downstream.tunnel(&t)
	outcome := balancer.Outcome{Class: balancer.OutcomeOK, Status: x.response.Status, Latency: x.tries.upstreamTime - x.tries.picked.Sub(x.request.startTime)}
	x.status = x.response.Status
	if x.toClient(transfer.Piece{Text: late}) != nil {
		x.interrupted = refusal.ClientGone.Reason
		if by := x.request.client.cutBy(); by != nil {
			x.interrupted = by.Reason
		}
		x.request.client.downstream.cut(-1) // a part of late may have been sent
		return outcome
	}
	x.bytesOut, x.counted = int64(len(late)), true
	x.record(x.tries.upstreamTime) // of the handshake
	t.Requests.Transfer(t.Shard, 0, x.bytesOut)
	x.body.buffers.GiveBack()
	if cut := t.Run(early, &x.body.bytesIn, &x.bytesOut); cut != nil {
		by := x.request.client.cutBy()
		switch x.interrupted = cutReason(cut, x.route.service); {
		case by != nil:
			x.interrupted = by.Reason
		case brokenByPeer(cut) && denial(x.tries.token, cut, x.tries.waiting) != nil:
			x.interrupted = refusal.Intention.Reason
		}
		x.request.client.downstream.cut(-1)
	}
	return outcome
}

// cutReason returns why a tunnel to a peer of a service ended before both sides had closed their
// sending sides; cut is the result of run. "": it did not.
func cutReason(cut error, of *route.Service) string {
	var broken socket.BrokenEnd
	switch {
	case cut == nil:
		return ""
	case cut == socket.ErrIdle:
		return "idle_timeout"
	case cut == errPanicked:
		return refusal.Internal.Reason
	case !errors.As(cut, &broken):
		if of.Pool.Snapshot().OneLeader() {
			return refusal.Demoted.Reason
		}
		return refusal.Cut.Reason
	case broken.Client:
		return "client_gone"
	}
	return "upstream_reset"
}

// cutBySluice reports whether a reason is one for which sluice itself has cut what was forwarded.
func cutBySluice(reason string) bool {
	return reason == refusal.Cut.Reason || reason == refusal.Demoted.Reason || reason == refusal.Revoked.Reason || reason == refusal.TooManyConnections.Reason
}

// brokenByPeer reports whether a tunnel may have ended because of the connection to the peer.
func brokenByPeer(cut error) bool {
	var broken socket.BrokenEnd
	return cut != socket.ErrIdle && cut != errPanicked && !(errors.As(cut, &broken) && broken.Client)
}

// tunnelTimeouts returns the idle timeouts of the tunnels of a service.
func tunnelTimeouts(t route.Timeouts) socket.IdleTimeouts {
	return socket.IdleTimeouts{Open: t.Tunnel, HalfClosed: min(t.Tunnel, t.Idle)}
}
