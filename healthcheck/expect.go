package healthcheck

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Expectation is what an answer must contain. The zero value accepts any answer.
type Expectation struct {
	Text   string         // must occur, byte for byte
	Regexp *regexp.Regexp // must match somewhere
	// Within is the number of bytes of the answer to search.
	Within int
}

func (e Expectation) empty() bool { return e.Text == "" && e.Regexp == nil }

// check returns an error if the answer does not meet e.
func (e Expectation) check(answer []byte) error {
	switch {
	case e.Text != "" && !bytes.Contains(answer, []byte(e.Text)):
		return fmt.Errorf("answer does not contain %q", e.Text)
	case e.Regexp != nil && !e.Regexp.Match(answer):
		return fmt.Errorf("answer does not match %q", e.Regexp)
	}
	return nil
}

// The range of final statuses.
const (
	lowestStatus  = 200
	highestStatus = 599
)

// Statuses is a set of HTTP statuses from 200 to 599. It is comparable.
type Statuses [(highestStatus-lowestStatus)/64 + 1]uint64

// ParseStatuses reads statuses separated by commas: numbers ("204"), inclusive ranges
// ("200-299") and classes ("3xx"). Spaces around them are allowed.
func ParseStatuses(text string) (Statuses, error) {
	var s Statuses
	for part := range strings.SplitSeq(text, ",") {
		first, last, err := parseRange(strings.TrimSpace(part))
		if err != nil {
			return Statuses{}, fmt.Errorf("statuses %q: %w", text, err)
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

func (s Statuses) Has(status int) bool {
	if status < lowestStatus || status > highestStatus {
		return false
	}
	return s[(status-lowestStatus)/64]&(1<<((status-lowestStatus)%64)) != 0
}

// String returns the shortest text that ParseStatuses reads as s.
func (s Statuses) String() string {
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
