//go:build unix

package docs

import (
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/test/verify"
)

var taskRow = regexp.MustCompile(`(?m)^\| [^|]+ \| \[[^\]]+\]\(([^)#]+)#?([^)]*)\) \| (\d+) \|$`)

// The table of the tasks has each script, with its number of steps.
func TestTasks(t *testing.T) {
	t.Parallel()
	const table = tasks + "/README.md"
	text := textOf(t, table)
	rows := taskRow.FindAllStringSubmatch(text, -1)
	verify.Equal(t, len(rows), 12, "tasks")
	for _, row := range rows {
		name := path.Join(tasks, row[1])
		verify.Equal(t, strconv.Itoa(stepsOf(t, name, row[2])), row[3], "%s: the steps of %s#%s", table, name, row[2])
	}
	for _, file := range verify.Result(filepath.Glob(filepath.Join(repository, tasks, "*.md"))).Must(t) {
		name := filepath.Base(file)
		verify.That(t, name == path.Base(table) || strings.Contains(text, "]("+name+")"), "%s does not have %s", table, name)
	}
}

// stepsOf returns the number of commands and of files to write in a section of a page, or in all of
// it.
func stepsOf(t *testing.T, name, section string) (n int) {
	first, end := linesOf(textOf(t, name), section)
	for _, s := range readPage(t, name) {
		switch {
		case s.line < first || s.line >= end:
		case s.file != "":
			n++
		case s.kind == "console" || s.kind == "sh":
			for _, c := range s.commands(t) {
				if c.text != "" && !strings.HasPrefix(c.text, "#") {
					n++
				}
			}
		}
	}
	return n
}

// linesOf returns the first line of the section with an anchor, from 1, and the line after its last
// one; without an anchor those of the whole text.
func linesOf(text, anchor string) (first, end int) {
	text = codeBlock.ReplaceAllStringFunc(text, func(code string) string { return strings.Repeat("\n", strings.Count(code, "\n")) })
	lines := strings.Split(text, "\n")
	depth := 0
	for n, line := range lines {
		level := len(line) - len(strings.TrimLeft(line, "#"))
		switch {
		case level == 0 || anchor == "":
		case first > 0 && level <= depth:
			return first, n + 1
		case anchors(line)[0] == anchor:
			first, depth = n+1, level
		}
	}
	return first, len(lines) + 1
}
