package packets

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"sluice/test/verify"
)

// soon bounds a wait for what must not come.
const soon = 20 * time.Millisecond

// open returns the Socket of a new UDP socket.
func open(t *testing.T) *Socket {
	t.Helper()
	udp := verify.Result(net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})).Must(t)
	s := verify.Result(New(udp)).Must(t)
	t.Cleanup(func() { s.Close() })
	return s
}

// offer offers s, and returns the file that the new process inherits.
func offer(t *testing.T, s *Socket) (*Offer, *os.File) {
	t.Helper()
	fds := verify.Result(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)).Must(t)
	o := verify.Result(s.Offer(os.NewFile(uintptr(fds[0]), "own"), os.NewFile(uintptr(fds[1]), "other"))).Must(t)
	copied := verify.Result(unix.Dup(fds[1])).Must(t)
	return o, os.NewFile(uintptr(copied), "inherited")
}

// inherit returns the Socket of a new process, and the offer that the old one has made.
func inherit(t *testing.T, old *Socket) (*Socket, *Offer) {
	t.Helper()
	o, file := offer(t, old)
	next := verify.Result(Inherit(file)).Must(t)
	t.Cleanup(func() { next.Close() })
	return next, o
}

// client returns a socket of a client.
func client(t *testing.T, s *Socket) *net.UDPConn {
	t.Helper()
	c := verify.Result(net.DialUDP("udp4", nil, s.LocalAddr().(*net.UDPAddr))).Must(t)
	t.Cleanup(func() { c.Close() })
	return c
}

// packetOf returns a packet with a short header of a connection of s.
func packetOf(s *Socket, text string) string {
	id := s.NewID()
	return "\x40" + string(id[:]) + text
}

// texts returns what is read within one batch of at most eight messages, without headers; an
// error if nothing comes.
func texts(s *Socket) (all []string, err error) {
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i] = newMessage()
	}
	n, err := s.ReadBatch(ms, 0)
	for _, m := range ms[:n] {
		all = append(all, string(m.Buffers[0][1+IDLen:m.N]))
	}
	return all, err
}

// expectText reads batches until one has text, and returns all.
func expectText(t *testing.T, s *Socket, text string) (all []string) {
	t.Helper()
	verify.NoError(t, s.SetReadDeadline(time.Now().Add(10*time.Second)))
	for !slices.Contains(all, text) {
		more, err := texts(s)
		verify.Require(t, err == nil, "got %q, want %q: %v", all, text, err)
		all = append(all, more...)
	}
	return all
}

// expectNothing expects no packet.
func expectNothing(t *testing.T, s *Socket) {
	t.Helper()
	verify.NoError(t, s.SetReadDeadline(time.Now().Add(soon)))
	all, err := texts(s)
	verify.That(t, all == nil && errors.Is(err, os.ErrDeadlineExceeded), "got %q, %v", all, err)
	verify.NoError(t, s.SetReadDeadline(time.Time{}))
}

func send(t *testing.T, c *net.UDPConn, packets ...string) {
	t.Helper()
	for _, p := range packets {
		verify.Result(c.Write([]byte(p))).Must(t)
	}
}

// accept accepts an offer while the old process waits for packets. It returns when that has read
// the first one that was passed, and the new one the first of its own.
func accept(t *testing.T, old, next *Socket, o *Offer, c *net.UDPConn) {
	t.Helper()
	stopped := make(chan error, 1)
	go func() {
		all, err := texts(old)
		if err == nil && !slices.Equal(all, []string{"passed"}) {
			err = errors.New("it has read " + strings.Join(all, ", "))
		}
		stopped <- err
	}()
	for reading := false; !reading; runtime.Gosched() {
		old.mu.Lock()
		reading = old.reading
		old.mu.Unlock()
	}
	o.Accepted()
	verify.NoError(t, next.awaitOlder(next.older))
	send(t, c, packetOf(old, "passed"), packetOf(next, "first"))
	verify.Slices(t, expectText(t, next, "first"), []string{"first"}, "read by the new process")
	verify.NoError(t, <-stopped)
}

// The old process reads until the new one serves, and then the new one does: each gets the packets
// of its connections, and nothing is lost between.
func TestEachProcessGetsItsPackets(t *testing.T) {
	old := open(t)
	c := client(t, old)
	next, o := inherit(t, old)
	verify.Equal(t, old.Secret("a"), next.Secret("a"), "secret")
	verify.That(t, old.Secret("a") != old.Secret("b"), "the secrets of two purposes are the same")
	send(t, c, packetOf(old, "early"))
	expectNothing(t, next)
	verify.Slices(t, expectText(t, old, "early"), []string{"early"}, "before the new process serves")
	expectNothing(t, old)

	accept(t, old, next, o, c)
	send(t, c, packetOf(old, "1"), packetOf(next, "2"), packetOf(old, "3"), packetOf(next, "4"), packetOf(next, "5"))
	verify.Slices(t, expectText(t, next, "5"), []string{"2", "4", "5"}, "read by the new process")
	verify.Slices(t, expectText(t, old, "3"), []string{"1", "3"}, "read by the old process")
	verify.Equal(t, next.Counts().Passed, 3, "packets passed")

	// A client of a new connection chooses its id.
	initial := "\xc0\x00\x00\x00\x01\x08" + strings.Repeat("i", 20)
	send(t, c, initial)
	expectText(t, next, initial[1+IDLen:])

	// Without the old process the new one keeps what comes for it.
	verify.NoError(t, old.Close())
	send(t, c, packetOf(old, "lost"), packetOf(next, "6"))
	expectText(t, next, "6")
	verify.Equal(t, next.Counts().NotPassed, 1, "packets not passed")
	send(t, c, packetOf(old, "7"))
	expectText(t, next, "7")
}

// The control messages and the address of a packet are passed with it.
func TestPassedPacketsHaveControlMessages(t *testing.T) {
	old := open(t)
	control(t, old, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1) })
	c := client(t, old)
	raw := verify.Result(c.SyscallConn()).Must(t)
	verify.NoError(t, raw.Control(func(fd uintptr) {
		// ECT(0).
		verify.NoError(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, 2))
	}))
	next, o := inherit(t, old)
	o.Accepted()
	send(t, c, packetOf(old, "a"), packetOf(next, "b"))
	expectText(t, next, "b")
	ms := []ipv4.Message{newMessage()}
	verify.Result(old.ReadBatch(ms, 0)).Must(t)
	verify.Equal(t, ms[0].Addr.String(), c.LocalAddr().String(), "address")
	got := verify.Result(unix.ParseSocketControlMessage(ms[0].OOB[:ms[0].NN])).Must(t)
	verify.That(t, len(got) == 1 && got[0].Header.Level == unix.IPPROTO_IP && got[0].Data[0] == 2, "control messages: %+v", got)
}

func control(t *testing.T, s *Socket, f func(fd int) error) {
	t.Helper()
	raw := verify.Result(s.SyscallConn()).Must(t)
	var err error
	verify.NoError(t, raw.Control(func(fd uintptr) { err = f(int(fd)) }))
	verify.NoError(t, err)
}

// A message keeps its buffers when one before it is passed: quic-go knows them by their places.
func TestMessagesKeepTheirBuffers(t *testing.T) {
	old := open(t)
	next, _ := inherit(t, old)
	ms := make([]ipv4.Message, 4)
	var buffers, controls []*byte
	for i, of := range []*Socket{old, next, old, next} {
		ms[i] = newMessage()
		buffers, controls = append(buffers, &ms[i].Buffers[0][0]), append(controls, &ms[i].OOB[0])
		ms[i].N = copy(ms[i].Buffers[0], packetOf(of, string(rune('a'+i))))
		ms[i].NN = copy(ms[i].OOB, string(rune('A'+i)))
		ms[i].Addr = &net.UDPAddr{IP: net.IP{192, 0, 2, 1}, Port: i}
	}
	verify.Equal(t, next.keepOwn(ms, next.older), 2, "messages kept")
	for i, want := range []string{"bB1", "dD3"} {
		m := ms[i]
		got := string(m.Buffers[0][1+IDLen:m.N]) + string(m.OOB[:m.NN]) + string(rune('0'+m.Addr.(*net.UDPAddr).Port))
		verify.Equal(t, got, want, "message %d", i)
	}
	for i := range ms {
		verify.That(t, &ms[i].Buffers[0][0] == buffers[i] && &ms[i].OOB[0] == controls[i], "message %d has the buffers of another one", i)
	}
}

// When the new process ends or closes the socket, the old one reads it again.
func TestTheOldProcessReadsAgain(t *testing.T) {
	old := open(t)
	c := client(t, old)
	next, o := inherit(t, old)
	verify.NoError(t, old.SetReadDeadline(time.Now().Add(10*time.Second)))
	accept(t, old, next, o, c)
	file := verify.Result(next.older.File()).Must(t) // as package tableflip keeps one
	defer file.Close()
	verify.NoError(t, next.Close())
	send(t, c, packetOf(old, "again"))
	// With the same deadline.
	verify.Slices(t, verify.Result(texts(old)).Must(t), []string{"again"}, "read by the old process")

	next, o = inherit(t, old) // and another process can replace it
	accept(t, old, next, o, c)
}

// If the new process fails before it serves, the old one goes on, and keeps the address only as
// long as it has the socket itself.
func TestWithdraw(t *testing.T) {
	for name, began := range map[string]bool{"before it has the socket": false, "after that": true} {
		old := open(t)
		o, file := offer(t, old)
		left := file // a duplicate that stays open
		if began {
			copied := verify.Result(unix.Dup(int(file.Fd()))).Must(t)
			left = os.NewFile(uintptr(copied), "left")
			verify.NoError(t, verify.Result(Inherit(file)).Must(t).Close())
		}
		o.Withdraw()
		send(t, client(t, old), packetOf(old, "a"))
		expectText(t, old, "a")
		verify.NoError(t, old.Close())
		again, err := net.ListenUDP("udp4", old.LocalAddr().(*net.UDPAddr))
		verify.Require(t, err == nil, "%s: the address is in use: %v", name, err)
		again.Close()
		remnant, err := Inherit(left)
		verify.That(t, remnant == nil && err == nil, "%s: a remnant is inherited: %v, %v", name, remnant, err)
	}
}

// The new process does not wait for an old one that has closed the socket.
func TestOfferOfAClosedSocket(t *testing.T) {
	old := open(t)
	c := client(t, old)
	next, o := inherit(t, old)
	verify.NoError(t, old.Close())
	o.Accepted()
	send(t, c, packetOf(next, "a"))
	expectText(t, next, "a")
}

// An old process that does not read loses packets, and does not stop the new one. What it gets is
// whole, also where a write ends within a message.
func TestAFullQueueStopsNobody(t *testing.T) {
	old := open(t)
	c := client(t, old)
	next, o := inherit(t, old)
	accept(t, old, next, o, c)
	verify.NoError(t, next.older.SetWriteBuffer(1)) // the least that there is
	const total, together = 400, 5                  // more than a write takes then
	text := strings.Repeat("x", 1000)
	for range total / together {
		send(t, c, append(slices.Repeat([]string{packetOf(old, text)}, together), packetOf(next, "own"))...)
		expectText(t, next, "own")
	}
	counts := next.Counts()
	passed := counts.Passed - 1 // see accept
	verify.That(t, passed > 0 && counts.NotPassed > 0 && passed+counts.NotPassed == total, "%+v, want a sum of %d", counts, total)
	var got []string
	// The rest of the last one may still be in the new process.
	for uint64(len(got)) < passed-1 {
		got = append(got, expectText(t, old, text)...)
	}
	send(t, c, packetOf(old, "after"), packetOf(next, "own"))
	expectText(t, next, "own")
	got = append(got, expectText(t, old, "after")...)
	verify.Equal(t, len(got), int(passed)+1, "packets that the old process gets")
	for _, g := range got[:passed] {
		verify.Equal(t, g, text, "a packet")
	}
}

// What a write sends in part is sent to its end later, and no other message between.
func TestAMessageThatIsSentInPart(t *testing.T) {
	old := open(t)
	next, o := inherit(t, old)
	o.Accepted()
	first, second := messageOf(&net.UDPAddr{IP: net.IP{192, 0, 2, 1}}, "", packetOf(old, "first")), newMessage()
	whole := appendMessage(nil, &first)
	const sent = 9
	verify.Result(next.older.Write(whole[:sent])).Must(t)
	next.unsent = slices.Clone(whole[sent:])
	second.N = copy(second.Buffers[0], packetOf(old, "second"))
	second.Addr = first.Addr
	verify.Equal(t, next.keepOwn([]ipv4.Message{second}, next.older), 0, "messages kept")
	verify.Slices(t, expectText(t, old, "second"), []string{"first", "second"}, "read by the old process")
	verify.Equal(t, next.Counts().Passed, 1, "packets passed, without the one before")
}

// A deadline ends a read, wherever it waits: so quic-go closes.
func TestDeadlines(t *testing.T) {
	old := open(t)
	c := client(t, old)
	next, o := inherit(t, old)
	expectDeadline := func(s *Socket, what string) {
		t.Helper()
		ended := make(chan error, 1)
		go func() {
			_, err := texts(s)
			ended <- err
		}()
		verify.NoError(t, s.SetReadDeadline(time.Now()))
		err := <-ended
		verify.That(t, errors.Is(err, os.ErrDeadlineExceeded), "%s: %v", what, err)
		verify.NoError(t, s.SetReadDeadline(time.Time{}))
	}
	expectDeadline(old, "the UDP socket")
	expectDeadline(next, "the new process waits")
	accept(t, old, next, o, c)
	expectDeadline(old, "the old process waits for what is passed")
	expectDeadline(next, "the new process reads")
	for _, s := range []*Socket{old, next} {
		verify.NoError(t, s.Close())
		_, err := texts(s)
		verify.That(t, errors.Is(err, net.ErrClosed), "closed: %v", err)
	}
}

// The methods for one packet read as ReadBatch does.
func TestReadFrom(t *testing.T) {
	s := open(t)
	c := client(t, s)
	send(t, c, "packet")
	b := make([]byte, 10)
	n, addr, err := s.ReadFrom(b)
	verify.That(t, err == nil && string(b[:n]) == "packet" && addr.String() == c.LocalAddr().String(), "%q from %v: %v", b[:n], addr, err)
	verify.Result(s.WriteTo([]byte("answer"), addr)).Must(t)
	n = verify.Result(c.Read(b)).Must(t)
	verify.Equal(t, string(b[:n]), "answer", "answer")
	verify.NoError(t, s.SetDeadline(longAgo))
	_, _, err = s.ReadFrom(b)
	verify.That(t, errors.Is(err, os.ErrDeadlineExceeded), "after the deadline: %v", err)
}
