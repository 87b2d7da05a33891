package transfer

import (
	"sync/atomic"

	"sluice/proxy/socket"
)

// SpliceMinBytes is the minimum length to splice. Copying costs less below it.
const SpliceMinBytes = 64 << 10

// Splice moves the rest of a body within the kernel, if both ends offer a socket
// and it is worth a pipe. Then it gives b back. done reports whether it did. moved and allRead: see
// [socket.Splice]; sourceFailed: err is an error of from.
func Splice(b *socket.Buffers, to Sink, from Source, moved *int64, allRead *atomic.Bool) (done, sourceFailed bool, err error) {
	out, pace := to.SinkSocket()
	in, body := from.SourceSocket()
	if pace == nil || body == nil || body.Left < SpliceMinBytes {
		return false, false, nil
	}
	b.GiveBack()
	done, sourceFailed, err = socket.Splice(out, in, pace, body.Left, moved, allRead)
	if done && err == nil {
		body.Left = 0
	}
	return done, sourceFailed, err
}
