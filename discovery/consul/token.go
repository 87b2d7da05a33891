package consul

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
)

// token is the ACL token of a client: a fixed one, or what a file holds at the
// moment. It is safe for concurrent use.
type token struct {
	file string // "": the value never changes

	mu    sync.Mutex // guards the fields below
	value string
	err   error // why the file could not be read last time
}

// newToken reads the token for the first time.
func newToken(file, value string) (*token, error) {
	t := &token{file: file, value: value}
	if file == "" {
		return t, nil
	}
	value, err := readToken(file)
	if err != nil {
		return nil, fmt.Errorf("consul: token file: %w", err)
	}
	t.value = value
	return t, nil
}

// current returns the token as of now. A file is read each time: it is tiny,
// and so no rewrite, rename or mount can go unnoticed. One that cannot be read,
// or is empty, leaves the token as it was: it may be in the middle of a change.
func (t *token) current() string {
	if t.file == "" {
		return t.value
	}
	value, err := readToken(t.file)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	if err == nil {
		t.value = value
	}
	return t.value
}

// problem returns why the file could not be read when it was last tried.
func (t *token) problem() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func readToken(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(data))
	switch {
	case value == "":
		return "", fmt.Errorf("%s is empty", file)
	case strings.ContainsAny(value, " \t\r\n"):
		return "", errors.New(file + " holds more than one word")
	}
	return value, nil
}
