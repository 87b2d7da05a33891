//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// instructions counts the instructions of a process in user mode, those of its present threads and
// of the threads that they start.
type instructions struct{ counters []int }

// countInstructions starts counting. A machine without counters, such as most virtual ones, is
// errors.ErrUnsupported.
func countInstructions(pid int) (*instructions, error) {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, err
	}
	i := &instructions{}
	attributes := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_INSTRUCTIONS, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Bits: unix.PerfBitInherit | unix.PerfBitExcludeKernel | unix.PerfBitExcludeHv,
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return nil, err
		}
		fd, err := unix.PerfEventOpen(&attributes, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		switch {
		case errors.Is(err, unix.ESRCH):
			continue // the thread has ended
		case err != nil:
			i.close()
			return nil, fmt.Errorf("%w: perf_event_open: %w", errors.ErrUnsupported, err)
		}
		i.counters = append(i.counters, fd)
	}
	return i, nil
}

// read returns the count so far.
func (i *instructions) read() (uint64, error) {
	var sum uint64
	for _, fd := range i.counters {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			return 0, fmt.Errorf("read instructions: %w", err)
		}
		sum += binary.NativeEndian.Uint64(b[:])
	}
	return sum, nil
}

func (i *instructions) close() {
	for _, fd := range i.counters {
		_ = unix.Close(fd)
	}
}
