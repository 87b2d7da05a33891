package socket

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// unknownMemory is the memory limit where there is none, and the machine does not say what it has.
const unknownMemory = 1 << 30

// MemoryLimit returns how much memory the process may use: the least of GOMEMLIMIT, the limits of
// its cgroup and of those above it, and the memory of the machine.
func MemoryLimit() int64 {
	return memoryLimit(os.DirFS("/"), debug.SetMemoryLimit(-1))
}

func memoryLimit(root fs.FS, limit int64) int64 {
	groups, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) < 3 {
			continue
		}
		top, file := "sys/fs/cgroup", "memory.max"
		switch parts[1] {
		case "": // version 2
		case "memory":
			top, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// In a container the folder may be one of the host, which is not there; those above it are.
		for folder := path.Join(top, parts[2]); strings.HasPrefix(folder, top); folder = path.Dir(folder) {
			text, _ := fs.ReadFile(root, path.Join(folder, file))
			limit = lower(limit, string(text), 1)
		}
	}
	machine, _ := fs.ReadFile(root, "proc/meminfo")
	total, _, _ := strings.Cut(strings.TrimPrefix(string(machine), "MemTotal:"), "kB")
	if limit = lower(limit, total, 1<<10); limit == math.MaxInt64 {
		return unknownMemory
	}
	return limit
}

// lower returns limit, or the number of units in text if it is one and less.
func lower(limit int64, text string, unit int64) int64 {
	if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n > 0 && n <= limit/unit {
		return n * unit
	}
	return limit
}
