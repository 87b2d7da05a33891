//go:build unix

package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"sluice/discovery/locality"
)

// ListenSocket binds a unix socket that only the user of this process may connect to. It
// replaces the file of a socket that nobody listens on, as a process leaves behind, and no other
// file. The file stays when the listener is closed: another process may have it.
func ListenSocket(path string) (net.Listener, error) {
	// Two processes must not both find the same file abandoned.
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer directory.Close()
	if err := syscall.Flock(int(directory.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock the directory of %s: %w", path, err)
	}
	l, err := bindSocket(path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if err := removeAbandoned(path); err != nil {
		return nil, err
	}
	return bindSocket(path)
}

func bindSocket(path string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// Linux makes the file with the mode of the socket. Elsewhere this fails, and the
		// file has other permissions until the Chmod below.
		return raw.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeAbandoned removes the file of a unix socket that nobody listens on.
func removeAbandoned(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: remove it, or choose another path", path)
	}
	dialer := locality.NewDialer(locality.ByOperator, 0)
	conn, err := dialer.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%s is in use by another process", path)
	}
	return os.Remove(path)
}
