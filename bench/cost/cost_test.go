//go:build linux

package main

import (
	"slices"
	"testing"

	"sluice/test/verify"
)

// A request within its bounds passes. What exceeds them is named with its work: a call with a line,
// one without, one that fails.
func TestWhatExceedsItsBoundIsNamed(t *testing.T) {
	most := verify.Result(parseBounds("# text\n* sendto 2.02 # why\n* other 0.05\nget100k splice 2.5\nidle1000 other 20\n")).Must(t)
	for _, test := range []struct {
		work    string
		counted counts
		want    []string
	}{
		{"small", counts{"sendto": 2.01, "write": 0.05, countNanoseconds: 40_000, countInstructed: 30_000}, nil},
		{"small", counts{"sendto": 3, "writev": 1, "recvfrom-failed": 1, "read": 0.01}, []string{
			"small: recvfrom-failed grew: 1.000, want at most 0.05, like all that have no line of their own",
			"small: sendto grew: 3.000, want at most 2.02",
			"small: writev grew: 1.000, want at most 0.05, like all that have no line of their own",
		}},
		{"small", counts{"splice": 2}, []string{"small: splice grew: 2.000, want at most 0.05, like all that have no line of their own"}},
		{"get100k", counts{"splice": 2}, nil},
		{"idle1000", counts{"openat": 19}, nil},
	} {
		got := most.exceeded(test.work, test.counted)
		verify.That(t, slices.Equal(got, test.want), "%s: %v: got %q, want %q", test.work, test.counted, got, test.want)
	}
}

func TestLinesOfBoundsAreChecked(t *testing.T) {
	for _, text := range []string{"small sendto", "small sendto 2 3", "small sendto two", "smal sendto 2"} {
		_, err := parseBounds(text)
		verify.That(t, err != nil, "no error for %q", text)
	}
	most := verify.Result(parseBounds(boundsText)).Must(t)
	for _, name := range []string{"sendto", "recvfrom", countObjects, countBytes} {
		_, named := most.of("small", name)
		verify.That(t, named, "bounds.txt has no line for %s", name)
	}
	verify.That(t, most[anyWork][anyOther] > 0, "bounds.txt has no line for the others")
}

func TestTimingsAreParsed(t *testing.T) {
	got := parseTimings("goos: linux\nBenchmarkPick/ewma/10/1-2 \t 5093 \t 316.5 ns/op\t       1 B/op\t       0 allocs/op\nBenchmarkPick/ewma/10/1-2 \t 5093 \t 216.5 ns/op\t       0 B/op\t       0 allocs/op\nPASS\n")
	verify.That(t, len(got) == 1 && slices.Equal(got[0], []string{"Pick/ewma/10/1", "216.5", "0", "0"}), "got %q", got)
}
