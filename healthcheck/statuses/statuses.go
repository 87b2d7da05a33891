// Package statuses has sets of HTTP statuses: which ones an active check accepts.
package statuses

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The range of final statuses.
const (
	lowestStatus  = 200
	highestStatus = 599
)

// Set is a set of HTTP statuses from 200 to 599. It is comparable.
type Set [(highestStatus-lowestStatus)/64 + 1]uint64

// Parse reads statuses separated by commas: numbers ("204"), inclusive ranges
// ("200-299") and classes ("3xx"). Spaces around them are allowed.
func Parse(text string) (Set, error) {
	var s Set
	for part := range strings.SplitSeq(text, ",") {
		first, last, err := parseRange(strings.TrimSpace(part))
		if err != nil {
			return Set{}, fmt.Errorf("statuses %q: %w", text, err)
		}
		for status := first; status <= last; status++ {
			s[(status-lowestStatus)/64] |= 1 << ((status - lowestStatus) % 64)
		}
	}
	return s, nil
}

// parseRange reads one element of the list.
func parseRange(part string) (first, last int, err error) {
	if len(part) == 3 && part[1:] == "xx" {
		part = part[:1] + "00-" + part[:1] + "99"
	}
	low, high, isRange := strings.Cut(part, "-")
	first, err = parseStatus(low)
	if !isRange || err != nil {
		return first, first, err
	}
	last, err = parseStatus(high)
	if err == nil && last < first {
		err = fmt.Errorf("range %s is empty", part)
	}
	return first, last, err
}

func parseStatus(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || len(text) != 3 || n < lowestStatus || n > highestStatus {
		return 0, errors.New(`want numbers from 200 to 599, ranges such as "200-299" or classes such as "2xx", separated by commas`)
	}
	return int(n), nil
}

func (s Set) Has(status int) bool {
	if status < lowestStatus || status > highestStatus {
		return false
	}
	return s[(status-lowestStatus)/64]&(1<<((status-lowestStatus)%64)) != 0
}

// String returns the shortest text that Parse reads as s.
func (s Set) String() string {
	var parts []string
	for status := lowestStatus; status <= highestStatus; status++ {
		if !s.Has(status) {
			continue
		}
		first := status
		for s.Has(status + 1) {
			status++
		}
		part := strconv.Itoa(first)
		if status > first {
			part += "-" + strconv.Itoa(status)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ",")
}
