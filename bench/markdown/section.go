package markdown

import (
	"fmt"
	"os"
	"strings"
)

// Section is the part of a document that a command writes: what is between two
// lines, which are comments and do not show.
type Section struct{ begin, end string }

// WrittenBy returns the section of a command: "bench".
func WrittenBy(command string) Section {
	return Section{
		begin: "<!-- written by " + command + " -->\n",
		end:   "<!-- end of what " + command + " wrote -->\n",
	}
}

// Find returns an error if the file has no such section.
func (s Section) Find(path string) error {
	_, _, err := s.around(path)
	return err
}

// Replace puts text, whole lines, into the section of the file. Cells of tables lose the blanks
// that align them in a terminal. A file without the section stays as it is.
func (s Section) Replace(path, text string) error {
	before, after, err := s.around(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+s.begin+compact(text)+s.end+after), 0o644)
}

// around returns what the file has before and after the section.
func (s Section) around(path string) (before, after string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	before, rest, begins := strings.Cut(string(b), s.begin)
	_, after, ends := strings.Cut(rest, s.end)
	if !begins || !ends {
		return "", "", fmt.Errorf("%s has no place for tables: no lines %q and %q", path, strings.TrimSpace(s.begin), strings.TrimSpace(s.end))
	}
	return before, after, nil
}

// compact returns text with one blank around each cell of a table, and short rules below its head.
func compact(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") {
			for blanks := "  "; strings.Contains(line, blanks); {
				line = strings.ReplaceAll(line, blanks, " ")
			}
			for strings.Contains(line, "----") {
				line = strings.ReplaceAll(line, "----", "---")
			}
		}
		b.WriteString(line)
	}
	return b.String()
}
