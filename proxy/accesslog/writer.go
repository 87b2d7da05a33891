package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// writer owns the output. One goroutine runs it.
type writer struct {
	log    *Logger
	out    *output
	notify func(error)

	full   chan []byte
	reopen chan chan error
	stop   func() // tells run to finish
	quit   chan struct{}

	done     chan struct{} // closed when run has returned
	closeErr error         // valid once done is closed

	failing bool
}

func newWriter(l *Logger, out *output, notify func(error)) *writer {
	w := &writer{
		log:    l,
		out:    out,
		notify: notify,
		full:   make(chan []byte, l.supply.limit),
		reopen: make(chan chan error),
		quit:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	w.stop = sync.OnceFunc(func() { close(w.quit) })
	return w
}

func (w *writer) run() {
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case b := <-w.full:
			w.write(b)
		case <-tick.C:
			w.collect()
		case reply := <-w.reopen:
			w.flush()
			reply <- w.out.reopen()
		case <-w.quit:
			w.flush()
			w.closeErr = w.out.close()
			return
		}
	}
}

// collect queues the buffers of all shards.
func (w *writer) collect() {
	for i := range w.log.shards {
		s := &w.log.shards[i]
		s.mu.Lock()
		s.handOverLocked(w.full)
		s.mu.Unlock()
	}
}

// flush writes all lines logged before.
func (w *writer) flush() {
	w.collect()
	for range len(w.full) {
		w.write(<-w.full)
	}
}

func (w *writer) write(b []byte) {
	defer w.log.supply.put(b)
	var err error
	if w.out.torn {
		_, err = w.out.file.Write([]byte{'\n'})
	}
	n := 0
	if err == nil {
		w.out.torn = false
		if n, err = w.out.file.Write(b); n > 0 {
			w.out.torn = b[n-1] != '\n'
		}
	}
	if err != nil {
		w.log.dropped.Add(uint64(bytes.Count(b[n:], []byte{'\n'})))
	}
	if failing := err != nil; failing != w.failing {
		w.failing = failing
		if w.notify != nil {
			if err != nil {
				err = fmt.Errorf("access log: %w", err)
			}
			w.notify(err)
		}
	}
}

type output struct {
	path string // empty for a stream, which is neither opened nor closed
	file io.WriteCloser
	torn bool // the file ends within a line
}

func openOutput(path string) (*output, error) {
	switch path {
	case "stdout":
		return &output{file: os.Stdout}, nil
	case "stderr":
		return &output{file: os.Stderr}, nil
	}
	o := &output{path: path}
	if err := o.reopen(); err != nil {
		return nil, err
	}
	return o, nil
}

// reopen opens the file, which is no stream. A named pipe that nobody reads is an error: else this
// would wait for a reader.
func (o *output) reopen() error {
	f, err := os.OpenFile(o.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return fmt.Errorf("access log: %w: nobody reads this pipe", err)
	case err != nil:
		return fmt.Errorf("access log: %w", err)
	}
	if o.file != nil {
		o.file.Close() // all lines are written
	}
	o.file, o.torn = f, endsTorn(f)
	return nil
}

// endsTorn reports whether a file ends within a line: whoever wrote to it found the disk full, or
// was killed.
func endsTorn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	r, err := os.OpenFile(f.Name(), os.O_RDONLY|syscall.O_NONBLOCK, 0) // which may be a pipe by now
	if err != nil {
		return false // it may be for writing only
	}
	defer r.Close()
	last := []byte{'\n'}
	_, _ = r.ReadAt(last, info.Size()-1)
	return last[0] != '\n'
}

func (o *output) close() error {
	if o.path == "" {
		return nil
	}
	if err := o.file.Close(); err != nil {
		return fmt.Errorf("access log: %w", err)
	}
	return nil
}
