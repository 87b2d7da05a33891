package consul

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"sluice/config/regular"
)

// token is the ACL token of a client: fixed, or the current content of a file. It is
// safe for concurrent use.
type token struct {
	file string // "": the value never changes

	mu    sync.Mutex // guards the fields below
	value string
	err   error // of the last read of the file
}

// newToken returns the token. It reads the file.
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

// current returns the token. It reads the file each time, so that no change is missed.
// An unreadable or empty file may be in the middle of a change: then the previous token
// stays.
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

// problem returns the error of the last read of the file.
func (t *token) problem() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func readToken(file string) (string, error) {
	data, err := regular.ReadFile(file)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(data))
	switch {
	case value == "":
		return "", fmt.Errorf("%s is empty", file)
	case strings.ContainsAny(value, " \t\r\n"):
		return "", errors.New(file + " contains white space within the token")
	}
	return value, nil
}
