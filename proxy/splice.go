package proxy

import (
	"syscall"
	"time"
)

// spliceMinBytes is from how many bytes on the rest of a body is moved from
// socket to socket within the kernel: below, setting that up costs more than
// copying.
const spliceMinBytes = 64 << 10

// A spliceSide is one of the two connections of a splice.
type spliceSide struct {
	raw     syscall.RawConn
	entry   *sweepEntry
	sweeper *sweeper
	timeout time.Duration // of each wait
}

func (x *httpExchange) clientSide(timeout time.Duration) spliceSide {
	c := x.client
	return spliceSide{c.raw, &c.sweepEntry, c.server.sweeper, timeout}
}

func (x *httpExchange) peerSide(u *upstreamConn) spliceSide {
	return spliceSide{u.raw, &u.sweepEntry, u.transport.sweeper, x.service.Timeouts.Idle}
}
