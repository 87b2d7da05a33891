package gateway

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/config"
	"sluice/test/verify"
)

// refuseChown makes the kernel refuse system calls that change an owner, as a filter of systemd
// does, to the thread of the caller.
func refuseChown() error {
	load := unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS} // the number of the system call
	refuse := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	program := []unix.SockFilter{load}
	for _, call := range []uint32{unix.SYS_CHOWN, unix.SYS_FCHOWN, unix.SYS_LCHOWN, unix.SYS_FCHOWNAT} {
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: call}, refuse)
	}
	program = append(program, allow)
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&filter)), 0, 0)
}

// A unix socket that stays with its owner needs no permission to change owners.
func TestPermissionsOfASocketWithoutChown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketDirectory(t), "s")
	l := verify.Result(net.Listen("unix", path)).Must(t)
	defer l.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // it ends with this goroutine
		err := refuseChown()
		if err == nil {
			err = permit(l, &config.Socket{Mode: config.FileMode{Text: "0660", Value: 0o660}})
		}
		result <- err
	}()
	verify.NoError(t, <-result)
	info := verify.Result(os.Stat(path)).Must(t)
	verify.Equal(t, info.Mode().Perm(), os.FileMode(0o660), "the mode")
}

// The unit of systemd lets sluice give a socket to a group that it is in.
func TestUnitAllowsChown(t *testing.T) {
	t.Parallel()
	unit := string(verify.Result(os.ReadFile("../packaging/sluice.service")).Must(t))
	allows := false
	for line := range strings.Lines(unit) {
		switch strings.TrimSpace(line) {
		case "SystemCallFilter=@system-service", "SystemCallFilter=@chown":
			allows = true
		case "SystemCallFilter=~@privileged":
			allows = false
		}
	}
	verify.That(t, allows, "its filter refuses chown")
}
