// Package accesslog writes one line for each request: JSON or the combined
// log format.
//
// [Logger.Log] encodes the entry straight into a buffer and returns; it
// allocates nothing, waits for no disk and shares no lock between shards.
// Full buffers, and those older than a second, go to one goroutine that
// writes them. When it cannot keep up the buffers run out, and lines are
// dropped and counted ([Logger.Dropped]): memory stays bounded and no request
// ever waits for its log line. Lines of one shard stay in order; those of
// different shards may be written up to a second apart.
//
// # JSON
//
// One object on one line, with these keys in this order. Those marked
// "optional" are left out when they are empty or do not apply.
//
//	time         when the request arrived, RFC 3339, UTC, milliseconds
//	client       address of the client, without its port
//	method       as sent
//	host         the Host header (optional)
//	target       the request target as sent, still encoded
//	proto        "HTTP/1.1" or "HTTP/1.0"
//	status       status code sent to the client; 499: it went away before
//	bytes_in     octets of the request body that were read
//	bytes_out    octets of the response body that were sent
//	duration_ms  from the request's arrival to the end of the response,
//	             milliseconds with three decimals, as in all keys ending so
//	service      service that the route leads to (optional)
//	peer         "host:port" of the peer that was tried last (optional)
//	attempts     number of peers that were tried; 0: none
//	upstream_ms  from the start of the last attempt to the end of the head of
//	             its response (optional)
//	connect_ms   opening the connection for the last attempt; not there when
//	             a kept one was used (optional)
//	reason       why sluice answered by itself or cut the exchange, the same
//	             word as in X-Sluice-Reason (optional)
//	user_agent   (optional)
//	referer      (optional)
//
// What a client sends cannot break the line or the terminal of who reads it:
// quotes, backslashes and all control characters (those above U+007F and the
// line separators U+2028 and U+2029 too) are escaped, and each octet that is
// not UTF-8 becomes \ufffd.
//
// # Combined
//
// The format of Apache and nginx, with what it lacks at the end of the line:
//
//	client - - [02/Jan/2006:15:04:05 +0000] "method target proto" status bytes_out "referer" "user_agent" host="…" service="…" peer="…" attempts=1 bytes_in=0 duration_ms=12.345 upstream_ms=11.200 connect_ms=- reason="-"
//
// Time is UTC. What is empty is "-". As nginx does it, quotes, backslashes,
// control characters and octets above 0x7E are written as \xXX.
package accesslog
