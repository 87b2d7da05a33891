package healthcheck

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Expectation is what an answer must hold. Both may be asked for; the zero
// value asks for nothing.
type Expectation struct {
	Text   string         // must occur, byte for byte
	Regexp *regexp.Regexp // must match somewhere
	// Within is how many bytes of the answer are looked at. What Text or Regexp
	// ask for must lie within them.
	Within int
}

// empty reports whether anything will do.
func (e Expectation) empty() bool { return e.Text == "" && e.Regexp == nil }

// check returns what is missing in the answer.
func (e Expectation) check(answer []byte) error {
	switch {
	case e.Text != "" && !bytes.Contains(answer, []byte(e.Text)):
		return fmt.Errorf("answer lacks %q", e.Text)
	case e.Regexp != nil && !e.Regexp.Match(answer):
		return fmt.Errorf("answer does not match %q", e.Regexp)
	}
	return nil
}

// The statuses that a final answer may have.
const (
	lowestStatus  = 200
	highestStatus = 599
)

// Statuses is a set of HTTP statuses from 200 to 599. The zero value is empty.
// It is a value and may be compared.
type Statuses [(highestStatus-lowestStatus)/64 + 1]uint64

// ParseStatuses reads statuses separated by commas, each a number ("204"), a
// range with both ends included ("200-299") or a class ("3xx"). There may be
// spaces around them.
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

// parseRange reads one part of a list of statuses.
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
		err = fmt.Errorf("%s begins after its end", part)
	}
	return first, last, err
}

func parseStatus(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || len(text) != 3 || n < lowestStatus || n > highestStatus {
		return 0, errors.New(`want numbers from 200 to 599, ranges such as "200-299" or classes such as "2xx", with commas between them`)
	}
	return int(n), nil
}

// Has reports whether status is in the set.
func (s Statuses) Has(status int) bool {
	if status < lowestStatus || status > highestStatus {
		return false
	}
	return s[(status-lowestStatus)/64]&(1<<((status-lowestStatus)%64)) != 0
}

// String returns the set in its shortest form, which ParseStatuses reads.
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
