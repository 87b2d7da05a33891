package certificates

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
	"time"
)

// A Source has certificates that change while the program runs. It is safe for concurrent use.
type Source interface {
	// Certificates returns the certificates in use, in order of preference. They are never changed.
	Certificates() []*tls.Certificate
	Statuses() []Status
	// Refresh looks for changes that the source is not told about.
	Refresh()
}

// A Follower has the contents of files, as of their last good version. It is safe for
// concurrent use.
type Follower struct {
	files    Files
	changed  func(error)
	contents atomic.Pointer[Contents]
	reading  sync.Mutex // held by Read: what was read earlier replaces nothing that was read later

	mu sync.Mutex
	// mu guards the fields below, and calls of changed.
	text  text // that contents come from
	fault error
}

// Follow reads the files for the first time. changed is called, by Read, after a change of the
// files: with nil if the new contents are in use, or with the error, and the previous contents stay
// in use. A lasting error is reported once. changed may be nil. It must not call the Follower.
func Follow(files Files, changed func(error)) (*Follower, error) {
	f := &Follower{files: files, changed: changed}
	if f.changed == nil {
		f.changed = func(error) {}
	}
	var err error
	if f.text, err = files.text(); err != nil {
		return nil, err
	}
	contents, err := files.parse(f.text)
	if err != nil {
		return nil, err
	}
	f.contents.Store(contents)
	return f, nil
}

// Contents returns the contents of the last good Read.
func (f *Follower) Contents() *Contents { return f.contents.Load() }

// Certificates implements Source.
func (f *Follower) Certificates() []*tls.Certificate {
	if c := f.Contents().Certificate; c != nil {
		return []*tls.Certificate{c}
	}
	return nil
}

// Refresh implements Source.
func (f *Follower) Refresh() { f.Read() }

// Read reads the files and returns the contents in use. If the files cannot be read or do not fit
// together, the previous contents stay in use: the files may be in the middle of a change.
func (f *Follower) Read() *Contents {
	if f.files == (Files{}) {
		return f.Contents()
	}
	f.reading.Lock()
	defer f.reading.Unlock()
	text, err := f.files.text()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && text == f.text {
		if f.fault != nil {
			f.fault = nil
			f.changed(nil)
		}
		return f.Contents()
	}
	var contents *Contents
	if err == nil {
		contents, err = f.files.parse(text)
	}
	if err != nil {
		if f.fault == nil || f.fault.Error() != err.Error() {
			f.fault = err
			f.changed(err)
		}
		return f.Contents()
	}
	contents.Revocations.goOn(f.Contents().Revocations, time.Now())
	f.contents.Store(contents)
	f.text, f.fault = text, nil
	f.changed(nil)
	return contents
}
