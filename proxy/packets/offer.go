package packets

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// version is the version of what an offer says and of passed messages.
const version = 1

// queueBytes is the size that the kernel's queue of passed packets should have.
const queueBytes = 1 << 20

// receiveTimeout bounds the wait for a socket that was offered before this process started.
const receiveTimeout = 5 * time.Second

// An Offer is a Socket on its way to a new process. A message with the descriptor waits in the pair
// through which that process passes packets later. So nobody has the socket if that process fails.
type Offer struct {
	socket *Socket
	own    *net.UnixConn
	other  *os.File // the end of the new process
}

// Offer offers the socket to a new process, which gets other and calls [Inherit]. own and other are
// the ends of a pair of stream sockets. Offer takes both, also if it fails.
func (s *Socket) Offer(own, other *os.File) (*Offer, error) {
	pair, err := connOf(own)
	if err != nil {
		other.Close()
		return nil, err
	}
	o := &Offer{s, pair, other}
	raw, err := s.udp.SyscallConn()
	if err == nil {
		text := append([]byte{version, s.ids.generation + 1}, s.secret[:]...)
		control := raw.Control(func(fd uintptr) {
			_, _, err = pair.WriteMsgUnix(text, unix.UnixRights(int(fd)), nil)
		})
		err = errors.Join(control, err)
	}
	if err != nil {
		o.Withdraw()
		return nil, fmt.Errorf("offer the UDP socket %s: %w", s.LocalAddr(), err)
	}
	return o, nil
}

// Accepted says that the new process serves. This one reads the UDP socket no more, unless the new
// process ends. If this one has closed the socket, the new process begins to read at once.
func (o *Offer) Accepted() {
	o.other.Close()
	o.socket.standAside(o.own)
}

// Withdraw ends an offer to a process that has failed.
func (o *Offer) Withdraw() {
	end(o.own)
	if udp, _, _ := receive(o.other); udp != nil { // others may have duplicates of the pair
		udp.Close()
	}
}

// Inherit returns the Socket that the process before this one has offered, and closes file; nil:
// nothing was offered, as in what is left of an earlier offer.
func Inherit(file *os.File) (*Socket, error) {
	udp, text, err := receive(file)
	if udp == nil || err != nil {
		return nil, err
	}
	s, err := newSocket(udp.conn, [secretLen]byte(text[2:]), text[1])
	if err != nil {
		udp.Close()
		return nil, err
	}
	_ = udp.pair.SetWriteBuffer(queueBytes) // else the kernel's default
	s.older, s.waiting = udp.pair, true
	return s, nil
}

// offered is a socket that was received.
type offered struct {
	conn *net.UDPConn
	pair *net.UnixConn
}

func (o *offered) Close() {
	o.conn.Close()
	end(o.pair)
}

// receive receives the socket of an offer, and closes file; nil: there is none.
func receive(file *os.File) (_ *offered, text []byte, err error) {
	pair, err := connOf(file)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			end(pair)
		}
	}()
	if err := pair.SetReadDeadline(time.Now().Add(receiveTimeout)); err != nil {
		return nil, nil, err
	}
	text, oob := make([]byte, 2+secretLen), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := pair.ReadMsgUnix(text, oob)
	if n == 0 && errors.Is(err, io.EOF) {
		end(pair)
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("receive a UDP socket: %w", err)
	}
	conn, err := udpOf(oob[:oobn])
	if err != nil {
		return nil, nil, fmt.Errorf("receive a UDP socket: %w", err)
	}
	if n < len(text) || text[0] != version {
		conn.Close()
		return nil, nil, fmt.Errorf("the old process offers %s with version %d, want %d", conn.LocalAddr(), text[0], version)
	}
	if err := pair.SetReadDeadline(time.Time{}); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return &offered{conn, pair}, text, nil
}

// udpOf returns the UDP socket in a control message.
func udpOf(oob []byte) (*net.UDPConn, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(fmt.Errorf("%d control messages", len(messages)), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(fmt.Errorf("%d descriptors", len(fds)), err)
	}
	file := os.NewFile(uintptr(fds[0]), "udp")
	defer file.Close()
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		conn.Close()
		return nil, errors.New("it is no UDP socket")
	}
	return udp, nil
}

// connOf returns an end of a pair, and closes file.
func connOf(file *os.File) (*net.UnixConn, error) {
	defer file.Close() // the connection has a duplicate
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("pair of sockets: %w", err)
	}
	pair, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("pair of sockets: it is no unix socket")
	}
	return pair, nil
}
