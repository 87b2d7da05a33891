package proxy

import (
	"sluice/proxy/socket"
	"sync/atomic"
)

// spliceMinBytes is the minimum length to splice. Copying costs less below it.
const spliceMinBytes = 64 << 10

// spliceBody moves the rest of a body within the kernel, if both ends offer a socket
// and it is worth a pipe. Then it gives b back. done reports whether it did. moved and allRead are those of
// splice; sourceFailed: err is an error of from.
func spliceBody(b *socket.Buffers, to sink, from source, moved *int64, allRead *atomic.Bool) (done, sourceFailed bool, err error) {
	out, pace := to.sinkSocket()
	in, body := from.sourceSocket()
	if pace == nil || body == nil || body.left < spliceMinBytes {
		return false, false, nil
	}
	b.GiveBack()
	done, sourceFailed, err = socket.Splice(out, in, pace, body.left, moved, allRead)
	if done && err == nil {
		body.left = 0
	}
	return done, sourceFailed, err
}
