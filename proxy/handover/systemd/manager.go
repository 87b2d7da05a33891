// Package systemd tells systemd what this process does, and takes the sockets that systemd
// has opened for it. Without systemd nothing is sent, and there are no sockets.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is systemd, as the environment of this process describes it. The zero Manager is
// none. A message that cannot be sent is dropped: systemd then reports a timeout. Its methods
// may be called concurrently.
type Manager struct {
	watchdog time.Duration // 0: none
	sends    bool          // New has made it

	mu      sync.Mutex // guards the fields below
	main    bool       // this process is the main process of the service
	ready   bool
	status  string
	sockets []socket                // not taken
	taken   map[net.Listener]string // the names of the others
}

// New takes the sockets of systemd. It must be called once in a process, before others use the
// environment: it removes the variables that concern this process only, and leaves the ones for a
// process that replaces it.
func New() (*Manager, error) {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	if watchdog == 0 {
		_ = os.Unsetenv("WATCHDOG_USEC") // of another process
	}
	_ = os.Unsetenv("WATCHDOG_PID") // a process that replaces this one has another
	sockets, err := inherit()
	if err != nil {
		return nil, fmt.Errorf("systemd: %w", err)
	}
	return &Manager{watchdog: watchdog, sends: true, sockets: sockets, taken: make(map[net.Listener]string)}, nil
}

// Lead makes this process send messages. replaces reports whether it replaces another one:
// systemd then follows this process.
func (m *Manager) Lead(replaces bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.main = true
	if replaces {
		m.send(fmt.Sprintf("MAINPID=%d", os.Getpid()))
	}
	m.sendState()
}

// Leave ends the messages: another process has replaced this one.
func (m *Manager) Leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.main = false
}

// Waiting sets what the start waits for.
func (m *Manager) Waiting(missing []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if status := "Waits for " + strings.Join(missing, "; "); status != m.status {
		m.status = status
		m.sendState()
	}
}

// Ready ends the start.
func (m *Manager) Ready(status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready, m.status = true, status
	m.sendState()
}

// Reloading begins a reload.
func (m *Manager) Reloading() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready {
		m.send(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()))
	}
}

// Reloaded ends a reload.
func (m *Manager) Reloaded(status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready {
		m.status = status
		m.sendState()
	}
}

// Stopping begins the stop, which takes at most the given time.
func (m *Manager) Stopping(within time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ready = false
	m.send(daemon.SdNotifyStopping, "STATUS=Stopping", fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", within.Microseconds()))
}

// Watchdog returns how long systemd waits for Alive before it restarts the service; 0: it does
// not.
func (m *Manager) Watchdog() time.Duration {
	return m.watchdog
}

// Alive tells systemd's watchdog that this process works.
func (m *Manager) Alive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send(daemon.SdNotifyWatchdog)
}

// PutBack makes a socket of TakeSocket that was not used free for another listener. It reports
// false if l is none.
func (m *Manager) PutBack(l net.Listener) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	name, ok := m.taken[l]
	if ok {
		delete(m.taken, l)
		m.sockets = append(m.sockets, socket{name: name, listener: l})
	}
	return ok
}

// PassOn calls add with each socket that is free, and a text for Receive. add does not keep file.
func (m *Manager) PassOn(add func(text string, file *os.File) error) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sockets {
		file, failed := s.file()
		if failed == nil {
			// A name has no control characters.
			failed = add(s.name+"\n"+s.addr().Network()+" "+s.addr().String(), file)
			file.Close()
		}
		err = errors.Join(err, failed)
	}
	return err
}

// Receive adds a socket that another process has passed on, and closes file.
func (m *Manager) Receive(text string, file *os.File) error {
	name, _, _ := strings.Cut(text, "\n")
	s, err := newSocket(name, file)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sockets = append(m.sockets, s)
	return nil
}

// Unused returns the sockets that no listener has taken.
func (m *Manager) Unused() (all []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sockets {
		a := s.addr()
		if a.Network() == "udp" {
			all = append(all, fmt.Sprintf("%s (udp %s)", s.name, a))
		} else {
			all = append(all, fmt.Sprintf("%s (%s)", s.name, a))
		}
	}
	return all
}

// sendState sends the status, and whether this process is ready. The caller holds mu.
func (m *Manager) sendState() {
	if m.ready {
		m.send(daemon.SdNotifyReady, "STATUS="+m.status)
	} else if m.status != "" {
		m.send("STATUS=" + m.status)
	}
}

// send sends assignments in one message. The caller holds mu, so messages keep their order.
func (m *Manager) send(assignments ...string) {
	if m.main && m.sends {
		for i, a := range assignments {
			assignments[i] = strings.ReplaceAll(a, "\n", " ")
		}
		_, _ = daemon.SdNotify(false, strings.Join(assignments, "\n"))
	}
}
