// Package handover lets a new process take over the listening sockets of the
// one that runs, so that a new binary replaces an old one without a refused or
// reset connection.
//
// The old process starts the new one, which inherits the sockets, loads its
// configuration, asks the old one for what it knows, finds its peers and says that
// it serves. Only then does the old one stop accepting, finish what it has begun,
// and end. A new process that fails, or takes longer than a minute, is ended, and
// the old one goes on as if nothing had happened. In between both accept from the
// same queue in the kernel, so that no connection is ever without somebody to take
// it.
//
// What the old one knows goes through a pipe, after one byte through another one
// that asks for it. A process of a version that does not know of this neither asks
// nor answers.
package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/cloudflare/tableflip"
)

// Handover is the process's part in replacing, and in being replaced. There can
// be only one that listens in a process. It is safe for concurrent use.
type Handover struct {
	pidFile  string
	listen   func(network, address string) (net.Listener, error)
	replaced chan struct{}
	stopped  context.Context
	stop     context.CancelFunc

	replacing sync.Mutex // held by Replace

	mu sync.Mutex
	// mu guards the field below.
	upgrader *tableflip.Upgrader // nil before the first Listen
}

// New returns a handover that has done nothing yet. pidFile, if not empty,
// names a file that will hold the id of the process that serves. listen makes
// the listeners that are not inherited, all of them TCP or Unix ones.
func New(pidFile string, listen func(network, address string) (net.Listener, error)) *Handover {
	h := &Handover{pidFile: pidFile, listen: listen, replaced: make(chan struct{})}
	h.stopped, h.stop = context.WithCancel(context.Background())
	return h
}

// Listen returns the listener for the address that the process before this one
// left, or a new one.
func (h *Handover) Listen(network, address string) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.upgrader == nil {
		upgrader, err := tableflip.New(tableflip.Options{PIDFile: h.pidFile})
		if err != nil {
			return nil, fmt.Errorf("take over from the process before: %w", err)
		}
		h.upgrader = upgrader
	}
	l, err := h.upgrader.Fds.Listener(network, address)
	if err != nil {
		return nil, fmt.Errorf("take over the socket for %s: %w", address, err)
	}
	if l != nil {
		return l, nil
	}
	if l, err = h.listen(network, address); err != nil {
		return nil, err
	}
	if err := h.upgrader.Fds.AddListener(network, address, l.(tableflip.Listener)); err != nil {
		l.Close()
		return nil, fmt.Errorf("keep the socket for %s for a later process: %w", address, err)
	}
	return l, nil
}

// Serving tells the process before this one, if there is one, that it may stop.
func (h *Handover) Serving() error {
	if err := h.begun().Ready(); err != nil {
		return fmt.Errorf("take over from the process before: %w", err)
	}
	return nil
}

// begun returns the upgrader, after the first Listen.
func (h *Handover) begun() *tableflip.Upgrader {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.upgrader
}

// The names of the pipes for the new process.
const (
	askName  = "ask"  // its end to write to
	giveName = "give" // its end to read from
)

// giveTimeout bounds how long a new process waits for what the old one knows.
const giveTimeout = 10 * time.Second

// Inherit tells the process before this one that this one starts, and returns what
// it gives, which the caller reads and closes; nil if it gives nothing. Replacing
// reports whether there is one. It is to be called once, after Listen.
func (h *Handover) Inherit() (given io.ReadCloser, replacing bool, err error) {
	upgrader := h.begun()
	if !upgrader.HasParent() {
		return nil, false, nil
	}
	ask, err := upgrader.Fds.File(askName)
	if ask == nil || err != nil {
		return nil, true, err
	}
	defer ask.Close()
	give, err := upgrader.Fds.File(giveName)
	if give == nil || err != nil {
		return nil, true, err
	}
	if _, err := ask.Write([]byte{1}); err != nil {
		give.Close()
		return nil, true, fmt.Errorf("ask the process before for what it knows: %w", err)
	}
	if err := give.SetReadDeadline(time.Now().Add(giveTimeout)); err != nil {
		give.Close()
		return nil, true, err
	}
	return give, true, nil
}

const predecessorTimeout = time.Minute

// ErrReplacing: there is a Replace already.
var ErrReplacing = errors.New("replace the process: a new one is starting already")

// Replace starts the program anew, from the path and with the arguments and the
// environment it was started with, and returns when the new process serves.
// Then Replaced is closed. An error means that this process goes on. A process
// that this one has replaced, and that has not finished what it had begun, is
// waited for, for at most predecessorTimeout. Only one Replace at a time can
// succeed, and only once.
//
// Give is called when the new process asks for what this one knows, and writes
// it. It has returned when Replace does.
func (h *Handover) Replace(give func(io.Writer) error) error {
	upgrader := h.begun()
	if upgrader == nil {
		return errors.New("replace the process: it does not listen yet")
	}
	if !h.replacing.TryLock() {
		return ErrReplacing
	}
	defer h.replacing.Unlock()
	ctx, cancel := context.WithTimeout(h.stopped, predecessorTimeout)
	defer cancel()
	if err := upgrader.WaitForParent(ctx); err != nil {
		return fmt.Errorf("replace the process: the one before it has not ended: %w", err)
	}
	giving, err := startGiving(upgrader.Fds, give)
	if err != nil {
		return fmt.Errorf("replace the process: %w", err)
	}
	err = upgrader.Upgrade()
	if gave := giving.end(); err != nil {
		return errors.Join(fmt.Errorf("replace the process: %w", err), gave)
	}
	close(h.replaced)
	return nil
}

// giving waits for a new process that asks.
type giving struct {
	asked, given *os.File
	ended        chan struct{}
	err          error // of give; meaningful once ended is closed
}

// startGiving adds the ends of two pipes to what a new process inherits, and
// answers it through them with give until end.
func startGiving(fds *tableflip.Fds, give func(io.Writer) error) (*giving, error) {
	asked, ask, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ask.Close() // fds has its own
	take, given, err := os.Pipe()
	if err != nil {
		asked.Close()
		return nil, err
	}
	defer take.Close()
	g := &giving{asked: asked, given: given, ended: make(chan struct{})}
	if err := errors.Join(fds.AddFile(askName, ask), fds.AddFile(giveName, take)); err != nil {
		asked.Close()
		given.Close()
		return nil, err
	}
	go func() {
		defer close(g.ended)
		defer given.Close() // what was written can be read still
		if n, _ := asked.Read(make([]byte, 1)); n > 0 {
			g.err = give(given)
		}
	}()
	return g, nil
}

// end ends what startGiving began, and returns what give did.
func (g *giving) end() error {
	g.asked.Close()
	g.given.Close() // what hangs in a write ends
	<-g.ended
	return g.err
}

// Replaced returns a channel that is closed when a new process serves.
func (h *Handover) Replaced() <-chan struct{} { return h.replaced }

// Stop gives up the sockets that were kept for a later process: new connections
// are refused as soon as the listeners are closed. There is no Replace after it.
func (h *Handover) Stop() {
	h.stop()
	if upgrader := h.begun(); upgrader != nil {
		upgrader.Stop()
		<-upgrader.Exit() // its sockets are closed by then
	}
}
