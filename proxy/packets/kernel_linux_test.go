package packets

import (
	"testing"

	"golang.org/x/sys/unix"

	"sluice/test/verify"
)

// What the kernel drops because nobody reads is counted, and the size of its buffer is known.
func TestKernelCounts(t *testing.T) {
	s := open(t)
	size := 0
	control(t, s, func(fd int) (err error) {
		size, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		return err
	})
	verify.Equal(t, s.Counts(), Counts{ReceiveBytes: size}, "at the start")
	verify.NoError(t, s.SetReadBuffer(1)) // the least that there is
	c := client(t, s)
	packet := string(make([]byte, 1000))
	for range 100 {
		send(t, c, packet)
	}
	counts := s.Counts()
	verify.That(t, counts.NotReceived > 0 && counts.NotReceived < 100, "%d of 100 packets dropped", counts.NotReceived)
	verify.That(t, counts.ReceiveBytes < size, "a buffer of %d bytes, %d before", counts.ReceiveBytes, size)
}
