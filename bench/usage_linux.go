package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bench/machine"
)

// cpuTime is what the kernel has charged to a process and its descendants.
type cpuTime struct {
	total        time.Duration // user and system, in nanoseconds
	user, system int64         // the same in clock ticks, for their proportion
}

// sub returns what was used between before and t.
func (t cpuTime) sub(before cpuTime) cpuTime {
	return cpuTime{total: t.total - before.total, user: t.user - before.user, system: t.system - before.system}
}

// userShare is the part of the time spent in user mode, 0 to 1.
func (t cpuTime) userShare() float64 {
	if t.user+t.system == 0 {
		return 0
	}
	return float64(t.user) / float64(t.user+t.system)
}

// readCPU sums the CPU time of pid and its descendants. A descendant that ends
// between two calls takes its time with it; proxies keep their workers.
func readCPU(pid int) (cpuTime, error) {
	pids, err := descendants(pid)
	if err != nil {
		return cpuTime{}, err
	}
	var sum cpuTime
	for _, pid := range pids {
		total, err := machine.ProcessClock(pid)
		if err != nil {
			return cpuTime{}, err
		}
		user, system, err := processTicks(pid)
		if err != nil {
			return cpuTime{}, err
		}
		sum.total += total
		sum.user += user
		sum.system += system
	}
	return sum, nil
}

// processTicks reads utime and stime of /proc/PID/stat.
func processTicks(pid int) (user, system int64, err error) {
	path := fmt.Sprintf("/proc/%d/stat", pid)
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	user, system, err = parseStat(string(b))
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	return user, system, nil
}

// parseStat returns fields 14 and 15 of the format of proc(5). Its second field
// is the command in parentheses and may itself hold spaces and parentheses.
func parseStat(line string) (user, system int64, err error) {
	fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(fields) < 13 {
		return 0, 0, fmt.Errorf("unexpected format %q", line)
	}
	user, err = strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("user time: %w", err)
	}
	system, err = strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("system time: %w", err)
	}
	return user, system, nil
}

// readResident sums the resident bytes of pid and its descendants. It reads
// smaps_rollup, which counts pages; the figures in stat and status lag.
func readResident(pid int) (int64, error) {
	pids, err := descendants(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		kib, err := parseResident(string(b))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += kib << 10
	}
	return sum, nil
}

// parseResident returns the KiB of the line "Rss: 1234 kB".
func parseResident(rollup string) (int64, error) {
	for line := range strings.Lines(rollup) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "Rss:" {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, errors.New("no Rss line")
}

// descendants returns pid and the processes below it.
func descendants(pid int) ([]int, error) {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			return nil, err
		}
		if len(lists) == 0 {
			return nil, fmt.Errorf("process %d has ended", pids[i])
		}
		for _, list := range lists {
			b, err := os.ReadFile(list)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
				continue // the thread has ended meanwhile
			} else if err != nil {
				return nil, err
			}
			for child := range strings.FieldsSeq(string(b)) {
				n, err := strconv.Atoi(child)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", list, err)
				}
				pids = append(pids, n)
			}
		}
	}
	return pids, nil
}

// readCoreBusy returns how long the CPU with the given number has been busy
// since the machine started, in steps of 10 ms. Time stolen by the hypervisor
// counts as busy: the core was not there for the proxy.
func readCoreBusy(cpu int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseCoreBusy(string(b), cpu)
}

// parseCoreBusy reads the line "cpuN user nice system idle iowait irq softirq
// steal …" of proc(5).
func parseCoreBusy(text string, cpu int) (time.Duration, error) {
	const idle, iowait = 3, 4
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	name := "cpu" + strconv.Itoa(cpu)
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[0] != name {
			continue
		}
		var busy int64
		for i, field := range fields[1:9] {
			if i == idle || i == iowait {
				continue
			}
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %s: %w", name, err)
			}
			busy += n
		}
		return time.Duration(busy) * tick, nil
	}
	return 0, fmt.Errorf("/proc/stat has no %s", name)
}

// pinSelf keeps this process off the proxy's core: all of its threads, and so
// the threads and processes that they start, run on the CPUs of list ("1",
// "1,3", "1-3") at the given niceness.
func pinSelf(list string, nice int) error {
	cpus, err := parseCPUs(list)
	if err != nil {
		return err
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			return fmt.Errorf("/proc/self/task: %w", err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to CPU %s: %w", list, err)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, tid, nice); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("set niceness %d (below 0 needs root): %w", nice, err)
		}
	}
	return nil
}

// favour gives this session the niceness of the processes that are measured.
// Where the kernel groups processes by session (sched(7), autogroup), niceness
// counts only within a session. The returned function takes it back.
func favour(nice int) (restore func(), err error) {
	const path = "/proc/self/autogroup"
	before, err := os.ReadFile(path) // "/autogroup-7 nice 0"
	if nice == 0 || errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	} else if err != nil {
		return nil, err
	}
	_, old, _ := strings.Cut(string(before), " nice ")
	if err := os.WriteFile(path, []byte(strconv.Itoa(nice)), 0); err != nil {
		return nil, fmt.Errorf("set niceness %d of the session (below 0 needs root): %w", nice, err)
	}
	return func() { _ = os.WriteFile(path, []byte(strings.TrimSpace(old)), 0) }, nil
}

// raiseFileLimit raises the limit of open files of this process and its children to n, and
// returns the new limit.
func raiseFileLimit(n uint64) (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Cur >= n {
		return limit.Cur, nil
	}
	raised := unix.Rlimit{Cur: n, Max: max(limit.Max, n)}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
		return n, nil
	}
	raised = unix.Rlimit{Cur: limit.Max, Max: limit.Max} // without the right to more
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
		return 0, fmt.Errorf("raise the limit of open files: %w", err)
	}
	return limit.Max, nil
}
