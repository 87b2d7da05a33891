//go:build linux

package main

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

//go:embed bounds.txt
var boundsText string

// Rows of bounds.txt for all works that do not have their own, and for all calls without a row.
const (
	anyWork  = "*"
	anyOther = "other"
)

// bounds are the most that a request may cost, by work and name.
type bounds map[string]map[string]float64

// parseBounds reads lines "WORK NAME MOST", with comments after #.
func parseBounds(text string) (bounds, error) {
	all := bounds{anyWork: {}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("bounds.txt:%d: want WORK NAME MOST", number)
		}
		most, err := strconv.ParseFloat(fields[2], 64)
		if err != nil {
			return nil, fmt.Errorf("bounds.txt:%d: %w", number, err)
		}
		if fields[0] != anyWork && !slices.ContainsFunc(works, func(w work) bool { return w.name == fields[0] }) {
			return nil, fmt.Errorf("bounds.txt:%d: no work %q", number, fields[0])
		}
		if all[fields[0]] == nil {
			all[fields[0]] = map[string]float64{}
		}
		all[fields[0]][fields[1]] = most
	}
	return all, nil
}

// of returns the bound of a count.
func (b bounds) of(work, name string) (most float64, named bool) {
	for _, row := range []string{work, anyWork} {
		if most, ok := b[row][name]; ok {
			return most, true
		}
	}
	if most, ok := b[work][anyOther]; ok {
		return most, false
	}
	return b[anyWork][anyOther], false
}

// exceeded describes what a request of a work costs above its bounds.
func (b bounds) exceeded(work string, c counts) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		most, named := b.of(work, name)
		if c[name] <= most || name == countNanoseconds || name == countInstructed && !named {
			continue
		}
		reason := fmt.Sprintf("at most %v", most)
		if !named {
			reason += ", like all that have no line of their own"
		}
		lines = append(lines, fmt.Sprintf("%s: %s grew: %.3f, want %s", work, name, c[name], reason))
	}
	return lines
}
