// Package regular opens the files that the configuration names, which parts of sluice read again
// and again, and its own: as package os does, but only regular ones. To open a named pipe would
// wait for a writer, and an upgrade, a reload or a stop for that.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"syscall"
)

// Open opens a file to read it. It waits for no one.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadUpTo returns the content of a file that has at most so many bytes.
func ReadUpTo(path string, most int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(f, most)
}

// ReadAll is ReadUpTo for a file that is open, also one that is not regular.
func ReadAll(f *os.File, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s: larger than %d bytes", f.Name(), most)
	}
	return data, err
}

// ReadFile returns the content of a file.
func ReadFile(path string) ([]byte, error) { return ReadUpTo(path, math.MaxInt64-1) }
