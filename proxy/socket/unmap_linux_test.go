package socket

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/test/verify"
)

// resident returns the resident bytes of the mapping that contains address.
func resident(t *testing.T, address uintptr) (kilobytes int) {
	t.Helper()
	var start, end uintptr
	for line := range strings.Lines(string(verify.Result(os.ReadFile("/proc/self/smaps")).Must(t))) {
		if strings.Contains(line, "-") {
			fmt.Sscanf(line, "%x-%x ", &start, &end)
		} else if size, is := strings.CutPrefix(line, "Rss:"); is && start <= address && address < end {
			verify.Result(fmt.Sscan(size, &kilobytes)).Must(t)
			return kilobytes
		}
	}
	t.Fatalf("no mapping contains %#x", address)
	return 0
}

func TestUnmapProgram(t *testing.T) {
	code := reflect.ValueOf(resident).Pointer()
	var start, end uintptr
	for line := range strings.Lines(string(verify.Result(os.ReadFile("/proc/self/maps")).Must(t))) {
		if fmt.Sscanf(line, "%x-%x ", &start, &end); start <= code && code < end {
			break
		}
	}
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_POPULATE_READ)
	if errno != 0 {
		t.Skip("the kernel is older than Linux 5.14:", errno)
	}
	before := resident(t, code)
	unmapProgram()
	after := resident(t, code)
	verify.That(t, after < before*3/4, "%d of %d kB of the code are resident still", after, before)
}

// A debugger writes its breakpoints into pages of the code, which are copies then.
func TestUnmapKeepsChangedPages(t *testing.T) {
	program := verify.Result(os.Open("/proc/self/exe")).Must(t)
	defer program.Close()
	page := os.Getpagesize()
	code := verify.Result(unix.Mmap(int(program.Fd()), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)).Must(t)
	defer unix.Munmap(code)
	const breakpoint = 0xcc
	code[0] = breakpoint
	verify.NoError(t, unix.Mprotect(code, unix.PROT_READ))
	unmapProgram()
	verify.Equal(t, code[0], breakpoint, "the byte that was written")
}
