package socket

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram takes the pages of the program's code and constants out of the memory of the
// process: a start needs most of them, serving few. They stay in the page cache, so one that is
// needed again costs a fault without I/O, which maps its 15 neighbours too. A mapping with a page
// of its own stays as it is: a breakpoint of a debugger or of an uprobe may be there. It only saves
// memory, so its errors are nobody's.
func unmapProgram() {
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer smaps.Close()
	var start, end uintptr // of the mapping that the lines are about
	candidate := false
	for lines := bufio.NewScanner(smaps); lines.Scan(); {
		var inode, own int
		var access, skip string
		if name, value, _ := strings.Cut(lines.Text(), ":"); name == "Anonymous" {
			if _, err := fmt.Sscan(value, &own); err == nil && own == 0 && candidate {
				_, _, _ = unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
			}
		} else if strings.Contains(name, "-") {
			n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s %s %s %d", &start, &end, &access, &skip, &skip, &inode)
			candidate = n == 6 && inode != 0 && strings.HasPrefix(access, "r-") && strings.HasSuffix(access, "p")
		}
	}
}
