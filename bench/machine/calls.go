package machine

import (
	"strconv"
	"strings"
)

// Call is one line of strace's summary.
type Call struct {
	Name          string
	Calls, Errors int64
}

// ParseCalls reads lines of "calls errors name", where errors is blank if there
// were none, and leaves out head, rulers and total.
func ParseCalls(summary string) []Call {
	var all []Call
	for line := range strings.Lines(summary) {
		fields := strings.Fields(line)
		if len(fields) < 2 || len(fields) > 3 || fields[len(fields)-1] == "total" {
			continue
		}
		calls, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			continue
		}
		c := Call{Name: fields[len(fields)-1], Calls: calls}
		if len(fields) == 3 {
			if c.Errors, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
				continue
			}
		}
		all = append(all, c)
	}
	return all
}
