// Package handover passes the listening sockets to a new process, so that a new binary
// replaces the running one without a refused or reset connection. UDP sockets pass too:
// see package packets.
//
// The old process starts the new one, which inherits the sockets, loads its
// configuration, requests the old one's state, finds its peers, and reports that it
// serves. Then the old process stops accepting, finishes its requests and exits. A new
// process that fails, or takes longer than a minute, is ended, and the old one
// continues. Meanwhile both accept from the same queue of the kernel.
//
// The state goes through a pipe, after the new process has requested it with one byte
// in another pipe. Processes of older versions neither request nor send it. Through a
// socket the new process asks the old one while that finishes its requests.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"sluice/observe/wake"
	"sluice/proxy/handover/systemd"
)

// Handover is the process's part in a replacement, as the old or the new one. A process
// can have only one that listens. It is safe for concurrent use.
type Handover struct {
	pidFile  string
	systemd  *systemd.Manager
	listen   func(network, address string) (net.Listener, error)
	replaced chan struct{}
	stopped  context.Context
	stop     context.CancelFunc

	replacing sync.Mutex // locked by Replace
	deciding  sync.Mutex // locked while it is decided whether the new process serves

	former former // the process before this one

	mu       sync.Mutex          // guards the fields below
	upgrader *tableflip.Upgrader // nil before the first Listen
	pipes    map[string]*os.File // from the old process: see askName
	serving  bool                // the old process was told to stop
	starting bool                // Replace starts a process
	released []net.Listener      // while another process may serve their sockets: see update
	packets  []packetSocket      // of ListenPacket
	// inheritedPackets are the old process's UDP sockets that this one has not taken, by key.
	inheritedPackets map[string]packetSocket
}

// New returns a handover. pidFile, if not empty, is written with the id of the serving process.
// listen makes listeners that are not inherited, nor of systemd, which passes its free sockets on;
// they must be TCP or Unix ones.
func New(pidFile string, manager *systemd.Manager, listen func(network, address string) (net.Listener, error)) *Handover {
	h := &Handover{pidFile: pidFile, systemd: manager, listen: listen, replaced: make(chan struct{}), pipes: make(map[string]*os.File), inheritedPackets: make(map[string]packetSocket)}
	h.stopped, h.stop = context.WithCancel(context.Background())
	return h
}

// Listen returns the inherited listener for the address, or a new one. name is the name of the
// listener in the configuration. It fails while Replace starts a process.
func (h *Handover) Listen(name, network, address string) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.mayOpen(); err != nil {
		return nil, err
	}
	kind, key := kindOf(network), keyOf(name, address)
	l, err := h.upgrader.Fds.Listener(kind, key)
	if err != nil {
		return nil, fmt.Errorf("take over the socket for %s: %w", address, err)
	}
	free, err := h.systemd.TakeSocket(name, network, address) // if it was put back, l is this socket too
	if l, free = listening(l), listening(free); l != nil {
		if free != nil {
			free.Close()
		}
		return l, nil
	}
	if l = free; l == nil && err == nil {
		l, err = h.listen(network, address)
	}
	if err != nil {
		return nil, err
	}
	if err := h.upgrader.Fds.AddListener(kind, key, l.(tableflip.Listener)); err != nil {
		l.Close()
		return nil, fmt.Errorf("register the socket for %s: %w", address, err)
	}
	return l, nil
}

// mayOpen returns an error if this process may open no sockets now. The first time it takes over
// those of the old process. The caller holds mu.
func (h *Handover) mayOpen() error {
	if h.stopped.Err() != nil { // nobody would serve or close it
		return errors.New("sluice stops: it opens no more sockets")
	}
	if h.starting { // which does not inherit it, so its own Listen would fail
		return errors.New("a new process is starting, which opens it: this one does if that one fails")
	}
	if h.upgrader == nil {
		if err := h.takeOver(); err != nil {
			return fmt.Errorf("take over from the old process: %w", err)
		}
	}
	return nil
}

// takeOver takes over the files of the old process, if there is one.
func (h *Handover) takeOver() (err error) {
	if h.upgrader, err = tableflip.New(tableflip.Options{}); err != nil {
		return err
	}
	files, err := h.upgrader.Fds.Files()
	for _, file := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(file.Name(), "fd:"), ":") // as tableflip writes it
		if text, ok := strings.CutPrefix(name, systemdName); ok {
			err = errors.Join(err, h.systemd.Receive(text, file))
		} else if text, ok := strings.CutPrefix(name, packetsName); ok {
			err = errors.Join(err, h.inheritPackets(text, file))
		} else if name == formerName {
			h.former = former{file, json.NewDecoder(file), make(chan struct{}, 1)}
		} else {
			h.pipes[name] = file
		}
	}
	return err
}

// kindOf returns the name of a network for tableflip, which would remove the files of its network
// "unix" when a process ends: also one that never served, and sockets that systemd has made.
func kindOf(network string) string {
	if network == "unix" {
		return "unix socket"
	}
	return network
}

// keyOf returns the name of a socket for tableflip, which no other socket has: with port 0, as
// sockets of systemd may have it in the configuration, the address is not enough.
func keyOf(name, address string) string {
	if _, port, _ := net.SplitHostPort(address); port == "0" {
		return name + " " + address
	}
	return address
}

// Release closes a listener of Listen. No later process inherits it. The address is free unless
// another process serves with the same socket. While it is not decided which process serves, the
// socket stays until that is. A socket of systemd that was never used stays for another listener.
func (h *Handover) Release(l net.Listener, used bool) {
	if used || !h.systemd.PutBack(l) {
		h.update(func() { h.released = append(h.released, l) })
	}
}

// update calls change, and closes what was released if it is decided which process serves.
func (h *Handover) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	if h.starting || h.upgrader.HasParent() && !h.serving {
		return
	}
	for _, l := range h.released {
		if !wake.Closed(h.replaced) { // else the new process may serve with it
			// The copy for later processes cannot be closed, but need not listen.
			how := syscall.SHUT_RD
			if l.Addr().Network() == "unix" {
				how = syscall.SHUT_RDWR // listens recognizes that
			}
			control(l, func(fd int) error { return syscall.Shutdown(fd, how) })
		}
		l.Close()
	}
	h.released = nil
}

// listening returns l, or nil if a process before this one has released it, and closes it then.
func listening(l net.Listener) net.Listener {
	if l == nil || listens(l) {
		return l
	}
	l.Close()
	return nil
}

// listens reports whether l accepts: a process before this one may have released it.
func listens(l net.Listener) bool {
	on := 0
	err := control(l, func(fd int) (err error) {
		if l.Addr().Network() == "unix" { // SO_ACCEPTCONN stays
			poll := []unix.PollFd{{Fd: int32(fd)}}
			if _, err := unix.Poll(poll, 0); err == nil && poll[0].Revents&unix.POLLHUP == 0 {
				on = 1
			}
			return nil
		}
		on, err = syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		return err
	})
	return err != nil || on != 0
}

// control calls f with the descriptor of l.
func control(l net.Listener, f func(fd int) error) error {
	conn, ok := l.(syscall.Conn)
	if !ok {
		return errors.ErrUnsupported
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
	return errors.Join(controlErr, err)
}

// Serving tells the old process, if there is one, to stop accepting. Then it writes the pid
// file: if that fails, this process serves nevertheless.
func (h *Handover) Serving() error {
	err := h.begun().Ready()
	if err != nil {
		err = fmt.Errorf("take over from the old process: %w", err)
	}
	h.update(func() {
		h.serving = true
		h.closeInheritedPackets()
	})
	return errors.Join(err, h.writePID())
}

// writePID replaces the pid file.
func (h *Handover) writePID() error {
	if h.pidFile == "" {
		return nil
	}
	next := h.pidFile + ".new"
	err := os.WriteFile(next, strconv.AppendInt(nil, int64(os.Getpid()), 10), 0o600)
	if err == nil {
		err = os.Rename(next, h.pidFile)
	}
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("write the pid file: %w", err)
	}
	return nil
}

// begun returns the upgrader; nil before the first Listen.
func (h *Handover) begun() *tableflip.Upgrader {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.upgrader
}

// The names of the new process's ends of the pipes, and the beginning of the names of free sockets
// of systemd.
const (
	askName     = "ask"  // to write to
	giveName    = "give" // to read from
	systemdName = "systemd "
)

// giveTimeout bounds how long a new process waits for the old one's state.
const giveTimeout = 10 * time.Second

// RequestState requests the state of the old process and returns it; the caller reads and
// closes it. It is nil if there is none. replacing reports whether there is an old
// process. It must be called once, after Listen.
func (h *Handover) RequestState() (given io.ReadCloser, replacing bool, err error) {
	ask, give := h.pipes[askName], h.pipes[giveName]
	if ask == nil || give == nil {
		return nil, h.begun().HasParent(), nil
	}
	defer ask.Close()
	if _, err := ask.Write([]byte{1}); err != nil {
		give.Close()
		return nil, true, fmt.Errorf("ask the old process for its state: %w", err)
	}
	if err := give.SetReadDeadline(time.Now().Add(giveTimeout)); err != nil {
		give.Close()
		return nil, true, err
	}
	return give, true, nil
}

const predecessorTimeout = time.Minute

// ErrReplacing: another Replace is running.
var ErrReplacing = errors.New("replace the process: a new process is already starting")

// Replace starts the program with its path, arguments and environment, and returns when
// the new process serves, and Replaced is closed. On an error this process continues.
// If an older process still finishes its requests, Replace waits for it up to
// predecessorTimeout.
//
// give writes this process's state when the new one requests it. It returns before
// Replace does. answer answers the questions of the new process until this one ends.
func (h *Handover) Replace(give func(io.Writer) error, answer Answer) error {
	upgrader := h.begun()
	if upgrader == nil {
		return errors.New("replace the process: it does not listen")
	}
	if !h.replacing.TryLock() {
		return ErrReplacing
	}
	defer h.replacing.Unlock()
	ctx, cancel := context.WithTimeout(h.stopped, predecessorTimeout)
	defer cancel()
	if err := upgrader.WaitForParent(ctx); err != nil {
		return fmt.Errorf("replace the process: the process before has not ended: %w", err)
	}
	// Here no process is left that was before this one: so there are never three.
	h.update(func() { h.starting = true })
	defer h.update(func() { h.starting = false })
	err := h.systemd.PassOn(func(text string, file *os.File) error { return upgrader.Fds.AddFile(systemdName+text, file) })
	var giving *giving
	if err == nil {
		giving, err = startGiving(upgrader.Fds, give)
	}
	if err != nil {
		return fmt.Errorf("replace the process: %w", err)
	}
	answering, err := startAnswering(upgrader.Fds, answer)
	if err == nil {
		if err = h.upgrade(upgrader); err != nil {
			answering.Close()
		}
	}
	if gave := giving.end(); err != nil {
		return errors.Join(fmt.Errorf("replace the process: %w", err), gave)
	}
	return nil
}

// upgrade starts the new process, and waits until it serves.
func (h *Handover) upgrade(upgrader *tableflip.Upgrader) error {
	h.deciding.Lock()
	defer h.deciding.Unlock()
	offers, err := h.offerPackets(upgrader.Fds)
	if err != nil {
		return err
	}
	if err := upgrader.Upgrade(); err != nil {
		offers.withdraw()
		return err
	}
	offers.accepted()
	close(h.replaced)
	return nil
}

func (h *Handover) Replaced() <-chan struct{} { return h.replaced }

// Stop closes the sockets held for a new process: connections are refused once the
// listeners are closed too. Replace and Listen fail after it, and Replaced stays as it is.
func (h *Handover) Stop() {
	h.stop()
	if upgrader := h.begun(); upgrader != nil {
		upgrader.Stop()
		<-upgrader.Exit() // its sockets are closed
		h.deciding.Lock() // a new process may serve since a moment ago
		defer h.deciding.Unlock()
	}
}
