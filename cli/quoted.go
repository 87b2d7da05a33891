package cli

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"sluice/config/regular"
)

// maxQuotedBytes limits the file of which a line is quoted.
const maxQuotedBytes = 16 << 20

// widthAround is how many characters of a long line are quoted on each side of a column.
const widthAround = 50

// maybeSecret finds lines of a configuration that may have a credential, or that begin with a key
// whose value may be one.
var maybeSecret = regexp.MustCompile(`(?i)secret|passw|token|key|credential|auth|header|cookie|users|send|\b(set|add)\b|[@?]|\$\{|-----`)

// firstWord begins a line of the file that belongs to no line above it.
var firstWord = regexp.MustCompile(`^(- |[a-z_]+:)`)

// quoted returns a line of a file with a caret below a column, both from 1, for people. It is "" if
// the line may have a secret, or cannot be read.
func quoted(file string, line, column int) string {
	if column == 0 { // it is not known
		return ""
	}
	data, err := regular.ReadUpTo(file, maxQuotedBytes)
	lines := strings.Split(string(data), "\n")
	if err != nil || line > len(lines) || secretAbove(lines[:line]) {
		return ""
	}
	text := []rune(strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return '→'
		case !unicode.IsPrint(r):
			return unicode.ReplacementChar
		}
		return r
	}, strings.TrimSuffix(lines[line-1], "\r")))
	column = min(column-1, len(text))
	from, to := max(0, column-widthAround), min(len(text), column+widthAround)
	if from > 0 {
		text[from] = '…'
	}
	if to < len(text) {
		text[to-1] = '…'
	}
	return fmt.Sprintf("  %s\n  %s^\n", string(text[from:to]), strings.Repeat(" ", column-from))
}

// secretAbove reports whether the last line may have a secret: it, the one before, or one that it
// is below by its indentation says so.
func secretAbove(lines []string) bool {
	last := len(lines) - 1
	least := indentation(lines[last])
	if maybeSecret.MatchString(lines[last]) || least == 0 && !firstWord.MatchString(lines[last]) {
		return true
	}
	before := true // the next line is the one before
	for i := last - 1; i >= 0 && (before || least > 0); i-- {
		n := indentation(lines[i])
		if n == len(lines[i]) {
			continue // empty
		}
		if (before || n < least) && maybeSecret.MatchString(lines[i]) {
			return true
		}
		before, least = false, min(least, n)
	}
	return false
}

func indentation(line string) int { return len(line) - len(strings.TrimLeft(line, " \t\r")) }
