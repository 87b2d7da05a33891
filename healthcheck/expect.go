package healthcheck

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
)

// Expectation is what an answer must contain. The zero value accepts any answer.
type Expectation struct {
	Text   string         // must occur, byte for byte
	Regexp *regexp.Regexp // must match somewhere
	// RegexpBytes bounds how many bytes Regexp reads in one check, which fails beyond: an answer
	// that comes in parts is read again with each of them. 0: no bound.
	RegexpBytes int
	// Within is the number of bytes of the answer to search.
	Within int
}

func (e Expectation) empty() bool { return e.Text == "" && e.Regexp == nil }

// A search looks for what an answer must contain, of which more and more arrives.
type search struct {
	Expectation
	searched int  // bytes of the answer that were searched for Text
	found    bool // Text
	read     int  // bytes that Regexp has read
}

// errTooLong ends a search.
var errTooLong = errors.New("answer is too long for expect.regexp: want a shorter answer, a smaller expect.within or a shorter expression")

// check returns an error if the answer so far does not have what is expected. After errTooLong it
// is not called again.
func (s *search) check(answer []byte) error {
	from := max(s.searched-len(s.Text), 0)
	s.searched = len(answer)
	if s.found = s.found || bytes.Contains(answer[from:], []byte(s.Text)); !s.found {
		return fmt.Errorf("answer does not contain %q", s.Text)
	}
	if s.Regexp == nil {
		return nil
	}
	if s.read += len(answer); s.RegexpBytes > 0 && s.read > s.RegexpBytes {
		return errTooLong
	}
	if !s.Regexp.Match(answer) {
		return fmt.Errorf("answer does not match %q", s.Regexp)
	}
	return nil
}
