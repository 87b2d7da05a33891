package handover

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/proxy/handover/systemd"
	"sluice/proxy/packets"
	"sluice/test/verify"
)

// answerPackets answers the packets that a process reads with its name.
func answerPackets(s *packets.Socket, name string) {
	go func() {
		for b := make([]byte, 1500); ; {
			_, addr, err := s.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = s.WriteTo([]byte(name), addr) // who asked sees that nothing comes
		}
	}()
}

// expectAnswer sends a packet to a socket, and expects the name of the process that reads it. The
// packet belongs to a connection of owner; nil: to a new one.
func expectAnswer(t *testing.T, to net.Addr, owner *packets.Socket, name string) {
	t.Helper()
	conn := verify.Result(net.Dial("udp", to.String())).Must(t)
	defer conn.Close()
	packet := make([]byte, 30)
	if packet[0] = 0x40; owner != nil {
		id := owner.NewID()
		copy(packet[1:], id[:])
	}
	verify.Result(conn.Write(packet)).Must(t)
	verify.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	answer := make([]byte, 10)
	n, err := conn.Read(answer)
	verify.That(t, err == nil && string(answer[:n]) == name, "%s: answered by %q, %v, want %q", to, answer[:n], err, name)
}

// Each process gets the packets of its connections, also of a socket of systemd, and what the new
// one does not use stays with the old one. A process that fails changes nothing. The test has
// processes of its own.
func TestUDPSocketsAreHandedOver(t *testing.T) {
	const own = "SLUICE_TEST_HANDOVER_UDP"
	if os.Getenv(own) == "" {
		test := exec.Command(os.Args[0], "-test.run=^TestUDPSocketsAreHandedOver$", "-test.count=1")
		test.Env = append(os.Environ(), own+"=1")
		output, err := test.CombinedOutput() // of both processes
		verify.Require(t, err == nil && !strings.Contains(string(output), "FAIL"), "%v\n%s", err, output)
		return
	}
	const anywhere = "127.0.0.1:0"
	manager := verify.Result(systemd.New()).Must(t)
	h := New("", manager, net.Listen)
	listen := func(name string) *packets.Socket {
		t.Helper()
		return verify.Result(h.ListenPacket(name, anywhere)).Must(t)
	}
	web := listen("web")
	if os.Getenv(own) == "fails" {
		os.Exit(1)
	}
	given, replacing, err := h.RequestState()
	verify.NoError(t, err)
	if replacing {
		given.Close()
		ofSystemd, unused := listen("systemd"), listen("unused")
		// A released socket of systemd is there for the next listener of its name.
		address := ofSystemd.LocalAddr().String()
		h.ReleasePacket(unused)
		unused = listen("unused")
		for _, s := range []*packets.Socket{web, ofSystemd, unused} {
			answerPackets(s, "new")
		}
		verify.NoError(t, h.Serving())
		verify.NoError(t, h.begun().WaitForParent(t.Context()))
		h.ReleasePacket(ofSystemd)
		verify.Equal(t, listen("systemd").LocalAddr().String(), address, "the socket of systemd")
		return
	}

	opened := make(map[string]net.Addr)
	for _, name := range []string{"systemd", "unused"} {
		udp := verify.Result(net.ListenPacket("udp", anywhere)).Must(t).(*net.UDPConn)
		defer udp.Close()
		opened[name] = udp.LocalAddr()
		verify.NoError(t, manager.Receive(name+"\n", verify.Result(udp.File()).Must(t)))
	}
	ofSystemd, gone := listen("systemd"), listen("gone")
	verify.Equal(t, ofSystemd.LocalAddr().String(), opened["systemd"].String(), "the socket of systemd")
	for _, s := range []*packets.Socket{web, ofSystemd, gone} {
		answerPackets(s, "old")
	}
	verify.NoError(t, h.Serving())

	// Where one has failed, the old process goes on, and another one may replace it.
	replace := func() error {
		for {
			err := h.Replace(func(io.Writer) error { return nil }, nil)
			// Tableflip may learn of Serving later.
			if err == nil || !strings.Contains(err.Error(), "not ready") {
				return err
			}
		}
	}
	verify.NoError(t, os.Setenv(own, "fails"))
	err = replace()
	verify.That(t, err != nil && strings.Contains(err.Error(), "exited"), "replaced by a process that fails: %v", err)
	for _, s := range []*packets.Socket{web, ofSystemd, gone} {
		expectAnswer(t, s.LocalAddr(), s, "old")
		expectAnswer(t, s.LocalAddr(), nil, "old")
	}
	verify.NoError(t, os.Setenv(own, "1"))
	verify.NoError(t, replace())
	for _, s := range []*packets.Socket{web, ofSystemd} {
		expectAnswer(t, s.LocalAddr(), s, "old")
		expectAnswer(t, s.LocalAddr(), nil, "new")
	}
	expectAnswer(t, opened["unused"], nil, "new")
	expectAnswer(t, gone.LocalAddr(), gone, "old")
	expectAnswer(t, gone.LocalAddr(), nil, "old")

	// No process has the other socket when the old one has released it too.
	h.ReleasePacket(gone)
	for began := time.Now(); ; { // the new one may close it a moment later
		again, err := net.ListenPacket("udp", gone.LocalAddr().String())
		if err == nil {
			again.Close()
			break
		}
		verify.Require(t, time.Since(began) < 10*time.Second, "the address of a socket that nobody has: %v", err)
	}
}

// The address of a released UDP socket is free, although other processes have failed to get it.
func TestReleasePacket(t *testing.T) {
	const own = "SLUICE_TEST_HANDOVER_RELEASE"
	if os.Getenv(own) == "" {
		test := exec.Command(os.Args[0], "-test.run=^TestReleasePacket$", "-test.count=1")
		test.Env = append(os.Environ(), own+"=1")
		output, err := test.CombinedOutput()
		verify.Require(t, err == nil, "%v\n%s", err, output)
		return
	}
	h := New("", verify.Result(systemd.New()).Must(t), net.Listen)
	s := verify.Result(h.ListenPacket("web", "127.0.0.1:0")).Must(t)
	address := s.LocalAddr().String()
	_, err := h.ListenPacket("web", address)
	verify.That(t, err != nil && strings.Contains(err.Error(), "address already in use"), "listen twice: %v", err)
	for range 2 {
		offers := verify.Result(h.offerPackets(h.begun().Fds)).Must(t)
		verify.Equal(t, len(offers), 1, "sockets offered")
		offers.withdraw()
	}
	h.ReleasePacket(s)
	h.ReleasePacket(s)
	again, err := h.ListenPacket("web", address)
	verify.Require(t, err == nil, "listen again: %v", err)

	// A process that is starting has got the sockets before a release, and no later ones.
	offers := verify.Result(h.offerPackets(h.begun().Fds)).Must(t)
	h.update(func() { h.starting = true })
	h.ReleasePacket(again)
	_, err = h.ListenPacket("late", "127.0.0.1:0")
	verify.That(t, err != nil && strings.Contains(err.Error(), "a new process is starting"), "listen while a process starts: %v", err)
	offers.accepted()
	h.update(func() { h.starting = false })
	h.Stop()
	_, err = h.ListenPacket("late", "127.0.0.1:0")
	verify.That(t, err != nil && strings.Contains(err.Error(), "sluice stops"), "listen after Stop: %v", err)
}
