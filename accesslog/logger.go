package accesslog

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"
)

// Format is how a line is written.
type Format string

const (
	FormatJSON     Format = "json"
	FormatCombined Format = "combined"
)

// Options for New.
type Options struct {
	// Path is "stdout", "stderr", "off" or the name of a file, to which lines
	// are appended; it is created with mode 0640. Empty: "off".
	Path string

	// Format is FormatJSON (also when empty) or FormatCombined.
	Format Format

	// Sample is the share of requests that are logged, from 0 to 1, chosen at
	// random. Those with a status of 500 or more are always logged, so 0 means
	// only those.
	Sample float64

	// MaxBuffered is how many octets of lines may wait to be written before
	// lines are dropped; a long line may pass it by its own length. Default
	// (0): 8 MiB. It is rounded up to whole buffers of 64 KiB, one for each
	// shard at least.
	MaxBuffered int

	// Notify, if not nil, is called when writing begins to fail, with the
	// error, and with nil when it works again. It must not call the Logger.
	Notify func(err error)
}

// Logger is an access log. It is safe for concurrent use, and a nil Logger is
// one that is off.
type Logger struct {
	combined  bool
	everyLine bool
	threshold uint64 // a random 64-bit number below it selects a line

	shards  []shard // a power of two; none if the log is off
	supply  *supply
	writer  *writer
	dropped atomic.Uint64
}

const (
	defaultMaxBuffered = 8 << 20
	flushInterval      = time.Second

	// closeTimeout bounds Close when the output accepts nothing more, such as
	// a pipe that nobody reads.
	closeTimeout = 5 * time.Second
)

// New opens the log and starts its writer, which runs until Close.
func New(o Options) (*Logger, error) {
	if o.Format == "" {
		o.Format = FormatJSON
	}
	if o.Format != FormatJSON && o.Format != FormatCombined {
		return nil, fmt.Errorf("access log: format %q: must be %q or %q", o.Format, FormatJSON, FormatCombined)
	}
	if !(o.Sample >= 0 && o.Sample <= 1) {
		return nil, fmt.Errorf("access log: sample %v: must be from 0 to 1", o.Sample)
	}
	if o.MaxBuffered < 0 {
		return nil, fmt.Errorf("access log: max buffered %d: must not be negative", o.MaxBuffered)
	}
	if o.MaxBuffered == 0 {
		o.MaxBuffered = defaultMaxBuffered
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

// start makes a Logger of valid options with all defaults filled in.
func start(o Options, out *output) *Logger {
	l := &Logger{
		combined:  o.Format == FormatCombined,
		everyLine: o.Sample == 1,
		shards:    make([]shard, shardCount()),
	}
	if !l.everyLine {
		l.threshold = uint64(math.Ldexp(o.Sample, 64))
	}
	layout := layoutRFC3339
	if l.combined {
		layout = layoutCombined
	}
	for i := range l.shards {
		l.shards[i].clock = newClock(layout)
	}
	l.supply = newSupply(max((o.MaxBuffered+bufferSize-1)/bufferSize, len(l.shards)))
	l.writer = newWriter(l, out, o.Notify)
	go l.writer.run()
	return l
}

// shardCount returns a power of two that is large enough for two goroutines
// that run at once to meet rarely.
func shardCount() int {
	return 1 << bits.Len(uint(min(4*runtime.GOMAXPROCS(0), 128)-1))
}

// Enabled reports whether Log may write anything.
func (l *Logger) Enabled() bool {
	return l != nil && len(l.shards) > 0
}

// Log writes a line for e, or decides not to (Options.Sample). It allocates
// nothing and never waits for the output. shard is any number that differs
// between goroutines that log at the same time, such as that of the
// connection. After Close the line is dropped.
func (l *Logger) Log(shard uint32, e *Entry) {
	if !l.Enabled() {
		return
	}
	if !l.everyLine && e.Status < 500 && rand.Uint64() >= l.threshold {
		return
	}
	s := &l.shards[shard&uint32(len(l.shards)-1)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buf == nil {
		if s.buf = l.supply.get(); s.buf == nil {
			l.dropped.Add(1)
			return
		}
	}
	if l.combined {
		s.buf = combinedLine(s.buf, e, &s.clock)
	} else {
		s.buf = jsonLine(s.buf, e, &s.clock)
	}
	if len(s.buf) >= bufferFull {
		s.handOver(l.writer.full)
	}
}

// Dropped returns the number of lines that were not written because the
// output was too slow or failed, or because the log was closed.
func (l *Logger) Dropped() uint64 {
	if l == nil {
		return 0
	}
	return l.dropped.Load()
}

// Reopen opens the file again under its name, for a program that rotates logs
// by renaming them. All lines after it go to the new file. If the file cannot
// be opened, the one in use stays. It does nothing for a stream.
func (l *Logger) Reopen() error {
	if !l.Enabled() {
		return nil
	}
	reply := make(chan error, 1)
	select {
	case l.writer.reopen <- reply:
		return <-reply
	case <-l.writer.done:
		return errors.New("access log: closed")
	}
}

// Close writes what is buffered and closes the file. It gives up with an
// error when the output takes nothing for 5 seconds. Closing again is
// harmless.
func (l *Logger) Close() error {
	if !l.Enabled() {
		return nil
	}
	l.supply.close()
	l.writer.stop()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-l.writer.done:
		return l.writer.closeErr
	case <-timeout.C:
		return errors.New("access log: close: the output accepts nothing")
	}
}
