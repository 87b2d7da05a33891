// Package h3load puts the load of HTTP/3 on a server, and examines each answer: its status, and the
// length of its body.
//
// It writes frames to streams of quic-go itself, and encodes a request once, so that it needs less
// time than the server: it shares a core with the peers. It opens the same streams as a browser.
// There is no session of an earlier connection.
package h3load
