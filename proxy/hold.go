package proxy

import "time"

// holdTimeout is by how much a response may be delayed to be passed on as a
// whole.
const holdTimeout = 10 * time.Millisecond

// hold waits for the body of a response of known length, of which x.from[:n]
// has arrived, before anything of it is passed on: for all of a body that fits
// x.from, and for the first bytes of a longer one. It returns how many bytes
// have arrived then, or after holdTimeout.
//
// Many a server sends the head and the body of a response one after the other,
// Python's among them. If it dies in between, the request can still be tried
// elsewhere, or be answered with a 502, as long as the client has got nothing.
func (x *httpExchange) hold(u *upstreamConn, headLength, n int) (int, error) {
	enough := headLength + 1
	if all := int64(headLength) + x.response.ContentLength; all <= int64(len(x.from)) {
		enough = int(all)
	}
	if n >= enough {
		return n, nil
	}
	u.acknowledge()
	x.awaitBody(u)
	end := time.Now().Add(holdTimeout)
	for n < enough {
		more, err := u.readBy(end, x.from[n:])
		if n += more; more > 0 {
			continue
		}
		if err == errPatience {
			break
		}
		return n, err
	}
	return n, nil
}
