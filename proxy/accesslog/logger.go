// Package accesslog writes one line per request, as JSON, in the combined log format or by
// a template.
// docs/access-log.md describes the fields.
//
// [Logger.Log] encodes the entry into a buffer: it allocates nothing, waits for no
// output and shares no lock between shards. One goroutine writes full buffers, and all
// of them every second. When the output is too slow, lines are dropped and counted
// ([Logger.Dropped]). Lines of one shard stay in order; lines of different shards may
// be up to a second apart.
//
// In all formats, what a client sends cannot break the line or the reader's terminal:
// control characters, quotes, backslashes and invalid UTF-8 are escaped.
package accesslog

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"sluice/observe/panics"
)

// Options are the options of New.
type Options struct {
	// Path is "stdout", "stderr", "off" or a file to append to, created with mode
	// 0640. Empty: "off".
	Path string

	// Format is the format of a line; nil: JSON.
	Format Format

	// Sample is the share of requests to log, from 0 to 1, chosen at random. Requests
	// with a status of 500 or more are always logged.
	Sample float64

	// Slow: entries with at least this Waited are always logged. 0: they are not.
	Slow time.Duration

	// Notify, if not nil, is called with the error when writing begins to fail, and
	// with nil when it works again. It must not call the Logger.
	Notify func(err error)
}

// Logger is an access log. It is safe for concurrent use. A nil Logger is off.
type Logger struct {
	format    Format // nil: JSON
	everyLine bool
	slow      time.Duration // above all if it is 0 in the options
	threshold uint64        // a random 64-bit number below it selects a line

	shards    []shard // a power of two; none if the log is off
	supply    *supply
	writer    *writer
	dropped   atomic.Uint64
	successor atomic.Pointer[Logger] // gets the lines after Close; may be nil
}

const (
	// maxBuffers bounds the buffers that wait to be written before lines are dropped, unless there
	// are more shards.
	maxBuffers    = 128
	flushInterval = time.Second

	// closeTimeout bounds Close and Reopen when the output blocks, such as a pipe
	// without a reader.
	closeTimeout = 5 * time.Second
)

// New opens the log and starts its writer, which runs until Close.
func New(o Options) (*Logger, error) {
	if !(o.Sample >= 0 && o.Sample <= 1) {
		return nil, fmt.Errorf("access log: sample %v: must be from 0 to 1", o.Sample)
	}
	if o.Path == "" || o.Path == "off" {
		return &Logger{}, nil
	}
	out, err := openOutput(o.Path)
	if err != nil {
		return nil, err
	}
	return start(o, out), nil
}

// start makes a Logger of complete and correct options.
func start(o Options, out *output) *Logger {
	l := &Logger{
		format:    o.Format,
		everyLine: o.Sample == 1,
		slow:      cmp.Or(o.Slow, math.MaxInt64),
		shards:    make([]shard, shardCount()),
	}
	if !l.everyLine {
		l.threshold = uint64(math.Ldexp(o.Sample, 64))
	}
	l.supply = newSupply(max(maxBuffers, len(l.shards)))
	l.writer = newWriter(l, out, o.Notify)
	go func() {
		defer close(l.writer.done)
		panics.Repeat(nil, panics.Task, time.Second, l.writer.run)
	}()
	return l
}

// shardCount returns a power of two, large enough that two goroutines rarely share a
// shard.
func shardCount() int {
	return 1 << bits.Len(uint(min(4*runtime.GOMAXPROCS(0), 128)-1))
}

// Enabled reports whether Log may write anything.
func (l *Logger) Enabled() bool {
	return l != nil && len(l.shards) > 0
}

// Log writes a line for e, subject to Options.Sample. It allocates nothing and never
// waits for the output. shard should differ between goroutines that log concurrently.
// After Close the line is dropped.
func (l *Logger) Log(shard uint32, e *Entry) {
	if !l.Enabled() {
		return
	}
	if !l.everyLine && e.Status < 500 && !e.Failed && e.Waited < l.slow && rand.Uint64() >= l.threshold {
		return
	}
	s := &l.shards[shard&uint32(len(l.shards)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf == nil {
		if s.buf = l.supply.get(); s.buf == nil {
			if next := l.successor.Load(); next != nil {
				next.Log(shard, e)
			} else {
				l.dropped.Add(1)
			}
			return
		}
	}
	if l.format != nil {
		s.buf = l.format.line(s.buf, e, &s.clocks)
	} else {
		s.buf = jsonLine(s.buf, e, &s.clocks)
	}
	if len(s.buf) >= bufferFull {
		s.handOverLocked(l.writer.full)
	}
}

// Dropped returns the number of lines that were not written because the output was too
// slow, failed, or was closed.
func (l *Logger) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.dropped.Load()
}

// Reopen opens the file again under its name, after log rotation. Later lines go to the
// new file. On an error the open file stays in use. It fails when the open file accepts
// nothing for 5 seconds. It does nothing for a stream.
func (l *Logger) Reopen() error {
	if !l.Enabled() || l.writer.out.path == "" {
		return nil
	}
	timeout := time.After(closeTimeout)
	reply := make(chan error, 1)
	for request := l.writer.reopen; ; request = nil {
		select {
		case request <- reply:
		case err := <-reply:
			return err
		case <-l.writer.done:
			return errors.New("access log: closed")
		case <-timeout:
			return errors.New("access log: reopen: the output is blocked")
		}
	}
}

// CloseFor is Close for a log that next takes the place of: it gets the lines of
// every holder of l, and counts the lines that l has dropped.
func (l *Logger) CloseFor(next *Logger) error {
	if l == nil {
		return nil
	}
	l.successor.Store(next)
	err := l.Close()
	next.dropped.Add(l.dropped.Load())
	return err
}

// Close writes buffered lines and closes the file. It fails when the output accepts
// nothing for 5 seconds. It may be called again.
func (l *Logger) Close() error {
	if !l.Enabled() {
		return nil
	}
	l.supply.closed.Store(true)
	l.writer.stop()
	select {
	case <-l.writer.done:
		return l.writer.closeErr
	case <-time.After(closeTimeout):
		return errors.New("access log: close: the output is blocked")
	}
}
