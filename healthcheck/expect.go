package healthcheck

import (
	"bytes"
	"fmt"
	"regexp"
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
