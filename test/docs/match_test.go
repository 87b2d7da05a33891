//go:build unix

package docs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// varying are the forms of values that differ between two runs. All values of a form are equal.
var varying = []struct {
	form  *regexp.Regexp
	value string
}{
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "<time>"},
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b`), "<time>"},
	{regexp.MustCompile(`\b\d\d/[A-Z][a-z]{2}/\d{4}[: ]\d\d:\d\d:\d\d( [+-]\d{4})?`), "<time>"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d(\.\d+)?\b`), "<time>"},
	{regexp.MustCompile(`\b\d+\.\d+(µs|ms|s)\b`), "<duration>"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (ms|KB|queries)\b`), "<number> $2"},
	{regexp.MustCompile(`\bprocess \d+`), "process <id>"},
	{regexp.MustCompile(`\b\d{13}-\d+\b`), "<id>"},
	// The share that is needs some requests; the share that is due does not vary.
	{regexp.MustCompile(`(-|\d+%)/(\d+%)`), "<share>/$2"},
	{regexp.MustCompile(`\b[0-9a-f]{12}\b`), "<hash>"},
	// What a check says of a process that is killed depends on how far the check is.
	{regexp.MustCompile(`: ((dial|read) tcp [0-9.:>-]+: (connect|read): connection (refused|reset by peer)|EOF)`), ": <killed>"},
	{regexp.MustCompile(`"(\w+_ms|ms|index|inflight|requests|failures|queries|errors|changes|number|process|bytes)": \d+(\.\d+)?`), `"$1": <number>`},
}

// varyingColumns are the columns of tables with such values.
var varyingColumns = []string{"FOR", "INFLIGHT", "REQUESTS", "FAILURES", "LATENCY", "UP"}

var columnGap = regexp.MustCompile(` {2,}`)

// normal returns lines without their varying values, and with one blank for several.
func normal(lines []string) []string {
	var header, result []string
	for _, line := range lines {
		cells := columnGap.Split(strings.TrimRight(line, " "), -1)
		if len(cells) > 2 && line == strings.ToUpper(line) {
			header = cells
		} else if header != nil && len(cells) > 2 {
			for n, cell := range cells {
				if n < len(header) && slices.Contains(varyingColumns, header[n]) && cell != "…" {
					cells[n] = "<number>"
				}
			}
		}
		line = strings.TrimSpace(strings.Join(cells, " "))
		for _, v := range varying {
			line = v.form.ReplaceAllString(line, v.value)
		}
		result = append(result, line)
	}
	for len(result) > 0 && result[len(result)-1] == "" {
		result = result[:len(result)-1]
	}
	return result
}

// differ returns the first difference between what a page shows and what a command printed.
func differ(shown, printed []string) error {
	shown, printed = normal(shown), normal(printed)
	furthest := 0 // line of printed that could not be matched
	var matches func(s, p int) bool
	matches = func(s, p int) bool {
		furthest = max(furthest, p)
		switch {
		case s == len(shown):
			return p == len(printed)
		case shown[s] == "…" || shown[s] == "...":
			return matches(s+1, p) || p < len(printed) && matches(s, p+1)
		case p == len(printed):
			return false
		}
		return lineMatches(shown[s], printed[p]) && matches(s+1, p+1)
	}
	if matches(0, 0) {
		return nil
	}
	if furthest == len(printed) {
		return fmt.Errorf("the end is missing")
	}
	return fmt.Errorf("from this line: %q", printed[furthest])
}

var ellipsis = regexp.MustCompile(`…|\.\.\.`)

func lineMatches(shown, printed string) bool {
	parts := ellipsis.Split(shown, -1)
	if len(parts) == 1 {
		return shown == printed
	}
	for n := range parts {
		parts[n] = regexp.QuoteMeta(parts[n])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(printed)
}

func TestDiffer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		shown, printed string
		equal          bool
	}{
		{"a\nb", "a\nb", true},
		{"a\nb", "a\nc", false},
		{"a", "a\nb", false},
		{`Get "http://127.0.0.1:9/h": dial tcp 127.0.0.1:9: connect: connection refused`, `Get "http://127.0.0.1:9/h": read tcp 127.0.0.1:8->127.0.0.1:9: read: connection reset by peer`, true},
		{`Get "http://127.0.0.1:9/h": dial tcp 127.0.0.1:9: connect: connection refused`, `Get "http://127.0.0.1:9/h": dial tcp 127.0.0.1:9: connect: connection reset by peer`, true},
		{`Get "http://127.0.0.1:9/h": dial tcp 127.0.0.1:9: connect: connection refused`, `Get "http://127.0.0.1:9/h": context deadline exceeded`, false},
		{"a\nb", "a", false},
		{"", "", true},
		{"", "a", false},
		{"a\n…", "a", true},
		{"a\n…\nd", "a\nb\nc\nd", true},
		{"a\n...\nd", "a\nb\nc", false},
		{"a … d", "a b c d", true},
		{"Serving HTTP ...", "Serving HTTP on 1", true},
		{"a (b) .", "a (b) x", false},
		{"404 Not Found: no", "503 Service Unavailable: no", false},
		{"at 2026-11-20T20:40:03Z", "at 2026-11-21T21:41:04.5Z", true},
		{"12:33:04.626 INF took 1.5ms", "01:02:03.1 INF took 20.5ms", true},
		{"connect: 1s", "connect: 3s", false},
		{"12:33:04.626 INF", "01:02:03.1 WRN", false},
		{"from star-9001, process 29048", "from star-9001, process 1", true},
		{"from star-9001, process 29048", "from star-9002, process 29048", false},
		{`"requests": 15, "weight": 1`, `"requests": 0, "weight": 1`, true},
		{`"requests": 15, "weight": 1`, `"requests": 0, "weight": 2`, false},
		{"PEER  WEIGHT  REQUESTS  WHY\na     1       15        b", "PEER    WEIGHT  REQUESTS  WHY\na       1       0         b", true},
		{"PEER  WEIGHT  REQUESTS  WHY\na     1       15        b", "PEER    WEIGHT  REQUESTS  WHY\na       2       15        b", false},
		{"PLACE  HOST  PATH\n1      any   /", "PLACE  HOST  PATH\n2      any   /", false},
	} {
		err := differ(strings.Split(test.shown, "\n"), strings.Split(test.printed, "\n"))
		verify.That(t, (err == nil) == test.equal, "%q and %q: got %v, want equal: %v", test.shown, test.printed, err, test.equal)
	}
}
