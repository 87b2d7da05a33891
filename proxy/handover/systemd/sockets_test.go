package systemd

import (
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/test/verify"
)

// A listener for TCP and one for UDP of the same name each get their socket, and no other one. One
// that was put back is free again.
func TestPacketSockets(t *testing.T) {
	m := verify.Result(New()).Must(t)
	tcp := verify.Result(net.Listen("tcp", "127.0.0.1:0")).Must(t).(*net.TCPListener)
	defer tcp.Close()
	udp := verify.Result(net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})).Must(t)
	defer udp.Close()
	receive := func(m *Manager) {
		t.Helper()
		verify.NoError(t, m.Receive("web\n", verify.Result(tcp.File()).Must(t)))
		verify.NoError(t, m.Receive("web\n", verify.Result(udp.File()).Must(t)))
	}
	receive(m)
	verify.Slices(t, m.Unused(), []string{"web (" + tcp.Addr().String() + ")", "web (udp " + udp.LocalAddr().String() + ")"}, "unused")

	passed := verify.Result(New()).Must(t)
	texts := make(map[string]bool)
	verify.NoError(t, m.PassOn(func(text string, file *os.File) error {
		texts[text] = true
		copied, err := unix.Dup(int(file.Fd()))
		if err != nil {
			return err
		}
		return passed.Receive(text, os.NewFile(uintptr(copied), text))
	}))
	verify.Equal(t, len(texts), 2, "texts of the sockets")

	l := verify.Result(passed.TakeSocket("web", "tcp", tcp.Addr().String())).Must(t)
	verify.Require(t, l != nil, "the TCP socket is not taken")
	defer l.Close()
	l, err := passed.TakeSocket("web", "tcp", "127.0.0.1:1")
	verify.That(t, l == nil && err == nil, "a UDP socket for a TCP listener: %v, %v", l, err)
	none, err := passed.TakePacketSocket("other", "127.0.0.1:0")
	verify.That(t, none == nil && err == nil, "a socket for another listener: %v, %v", none, err)
	_, err = passed.TakePacketSocket("web", "127.0.0.1:1")
	verify.That(t, err != nil, "no error for another port")
	for range 2 {
		taken := verify.Result(passed.TakePacketSocket("web", udp.LocalAddr().String())).Must(t)
		verify.Require(t, taken != nil, "the UDP socket is not taken")
		verify.Equal(t, len(passed.Unused()), 0, "sockets that are free")
		passed.PutBackPacketSocket("web", taken)
	}
	verify.Slices(t, passed.Unused(), []string{"web (udp " + udp.LocalAddr().String() + ")"}, "put back")
}
