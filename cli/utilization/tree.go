package utilization

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat: USER_HZ is 100 wherever Go runs on Linux.
const tick = 10 * time.Millisecond

// treeTime returns the CPU time of a process and of all that it has started, also of those that have ended: they count
// for who has waited for them (man 5 proc).
func treeTime(files fs.FS, pid int) (time.Duration, error) {
	total, seen, open := time.Duration(0), map[int]bool{pid: true}, []int{pid}
	for len(open) > 0 {
		p := open[len(open)-1]
		open = open[:len(open)-1]
		folder := path.Join("proc", strconv.Itoa(p))
		stat, err := fs.ReadFile(files, folder+"/stat")
		used, ok := statTime(string(stat))
		if !ok && p == pid {
			return 0, fmt.Errorf("/%s/stat does not tell the CPU time: %v", folder, err)
		}
		total += used // of one that has just ended 0
		lists, err := fs.Glob(files, folder+"/task/*/children")
		if len(lists) == 0 && p == pid {
			return 0, fmt.Errorf("/%s/task has no lists of children: %v", folder, err)
		}
		for _, list := range lists {
			text, _ := fs.ReadFile(files, list) // the thread may have ended
			for field := range strings.FieldsSeq(string(text)) {
				if child, err := strconv.Atoi(field); err == nil && child > 0 && !seen[child] {
					seen[child] = true
					open = append(open, child)
				}
			}
		}
	}
	return total, nil
}

// statTime returns the CPU time in /proc/PID/stat: utime, stime, cutime and cstime. The name of the program, in
// parentheses, may have any bytes.
func statTime(stat string) (time.Duration, bool) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const utime, cstime = 14 - 3, 17 - 3 // fields are counted from 1, and two are gone
	if len(fields) <= cstime {
		return 0, false
	}
	var total time.Duration
	for _, field := range fields[utime : cstime+1] {
		n, err := strconv.ParseUint(field, 10, 36)
		if err != nil {
			return 0, false
		}
		total += time.Duration(n) * tick
	}
	return total, true
}
