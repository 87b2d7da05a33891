package proxy

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"

	"sluice/proxy/http1"
)

// Clients with HTTP/2 ask for WebSocket by an extended CONNECT (RFC 8441), whose text is
// an HTTP/1.1 upgrade. The handshake of RFC 6455 is between sluice and the peer then.

const (
	webSocket       = "websocket"
	webSocketAccept = "sec-websocket-accept"
)

// errDeclined means that the peer does not switch to WebSocket, but answers with a
// status that says so in HTTP/2 (RFC 8441, section 5).
var errDeclined = errors.New("the peer answers a request for WebSocket with success, and does not switch")

// offerWebSocket prepares the request for WebSocket of a client with HTTP/2.
func (x *httpExchange) offerWebSocket() error {
	if !http1.EqualFold(x.head.Find(x.in[x.start:x.end], http1.NameUpgrade), webSocket) {
		return http1.ErrProtocolRefused
	}
	x.webSocketKey = newWebSocketKey()
	return nil
}

// asksForWebSocket reports whether the request asks for WebSocket.
func (x *httpExchange) asksForWebSocket() bool {
	if !x.upgrade {
		return false
	}
	for protocol := range x.head.Elements(x.in[x.start:x.end], http1.NameUpgrade) {
		if http1.EqualFold(protocol, webSocket) {
			return true
		}
	}
	return false
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

// acceptsWebSocket reports whether the response, with the head b, confirms the key that
// sluice sent: the peer has understood the request, and does not repeat an earlier
// response.
func (x *httpExchange) acceptsWebSocket(b []byte) bool {
	return string(x.response.FindOther(b, webSocketAccept)) == x.webSocketKey.accept()
}
