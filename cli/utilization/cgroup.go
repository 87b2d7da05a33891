package utilization

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// cgroups is where the kernel has them (man 7 cgroups): version 2 if there is the file cgroup.controllers.
const cgroups = "sys/fs/cgroup"

// cgroupOf returns the folder of the cgroup of a process; "" without version 2, or where the folder is not visible, as
// in a container with the host's names of cgroups.
func cgroupOf(files fs.FS, pid int) string {
	if _, err := fs.Stat(files, path.Join(cgroups, "cgroup.controllers")); err != nil {
		return ""
	}
	text, _ := fs.ReadFile(files, path.Join("proc", strconv.Itoa(pid), "cgroup"))
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			folder := cgroups + path.Clean("/"+name)
			folder = strings.TrimSuffix(folder, "/")
			if _, err := fs.Stat(files, path.Join(folder, "cgroup.procs")); err == nil {
				return folder
			}
		}
	}
	return ""
}

// isAlone reports whether a cgroup has that process and no other.
func isAlone(files fs.FS, folder string, pid int) bool {
	text, err := fs.ReadFile(files, path.Join(folder, "cgroup.procs"))
	return err == nil && strings.TrimSpace(string(text)) == strconv.Itoa(pid)
}

// cgroupTime returns the CPU time in cpu.stat.
func cgroupTime(stat string) (time.Duration, bool) {
	for line := range strings.Lines(stat) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			return microseconds(strings.TrimSpace(text))
		}
	}
	return 0, false
}

func microseconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseUint(text, 10, 53)
	return time.Duration(n) * time.Microsecond, err == nil
}

// quota returns how many CPUs cpu.max allows, such as "150000 100000"; false: no limit.
func quota(limit string) (cpus float64, ok bool) {
	quota, period, _ := strings.Cut(strings.TrimSpace(limit), " ")
	q, errQuota := strconv.ParseUint(quota, 10, 53)
	p, errPeriod := strconv.ParseUint(period, 10, 53)
	return float64(q) / float64(max(p, 1)), errQuota == nil && errPeriod == nil && q > 0 && p > 0
}

// share returns memory.current / memory.max; 0 without a limit.
func share(current, limit string) float64 {
	c, errCurrent := strconv.ParseUint(strings.TrimSpace(current), 10, 64)
	l, errLimit := strconv.ParseUint(strings.TrimSpace(limit), 10, 64)
	if errCurrent != nil || errLimit != nil || l == 0 {
		return 0
	}
	return min(float64(c)/float64(l), 1)
}

// limits returns how many CPUs the limits of a cgroup and of those above it leave of some, and the largest share of
// a limit of memory that is in use; 0: none.
func limits(files fs.FS, folder string, cpus float64) (left, memory float64) {
	read := func(name string) string {
		text, _ := fs.ReadFile(files, path.Join(folder, name)) // the root has no limits
		return string(text)
	}
	for ; strings.HasPrefix(folder, cgroups); folder = path.Dir(folder) {
		if q, ok := quota(read("cpu.max")); ok {
			cpus = min(cpus, q)
		}
		memory = max(memory, share(read("memory.current"), read("memory.max")))
	}
	return cpus, memory
}
