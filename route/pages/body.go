// Package pages has the bodies of answers that sluice gives by itself: texts, and files, which are
// read again.
package pages

import (
	"bytes"
	"errors"
	"sync/atomic"

	"sluice/config/regular"
)

// MaxBytes is the size of the largest file.
const MaxBytes = 1 << 20

// Body is the body of an answer. It is safe for concurrent use.
type Body struct {
	path  string // "": a text that stays
	fixed []byte // that text
	text  atomic.Pointer[[]byte]
}

// Text returns a body that stays as it is. Deeply equal ones have the same text, so that
// configurations with them can be compared.
func Text(s string) *Body { return &Body{fixed: []byte(s)} }

// Open reads a file.
func Open(path string) (*Body, error) {
	b := &Body{path: path}
	if _, err := b.Refresh(); err != nil {
		return nil, err
	}
	return b, nil
}

// Bytes returns the body, which the caller must not change.
func (b *Body) Bytes() []byte {
	if b.path == "" {
		return b.fixed
	}
	return *b.text.Load()
}

// Refresh reads the file again, and reports whether it has changed. After an error the body stays
// as it is.
func (b *Body) Refresh() (changed bool, err error) {
	if b.path == "" {
		return false, nil
	}
	text, err := read(b.path)
	if err != nil {
		return false, err
	}
	if before := b.text.Load(); before != nil && bytes.Equal(*before, text) {
		return false, nil
	}
	b.text.Store(&text)
	return true, nil
}

func read(path string) ([]byte, error) {
	text, err := regular.ReadUpTo(path, MaxBytes)
	if err == nil && len(text) == 0 {
		err = errors.New(path + " is empty") // perhaps it is being written
	}
	return text, err
}
