package gateway

import (
	"io"
	"os"
	"sync"
	"sync/atomic"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"

	"sluice/config"
)

// logWriter writes log lines. Its level and format can change at any time. Its methods may
// be called concurrently.
type logWriter struct {
	level  atomic.Int32              // a zerolog.Level; lines below it are dropped
	format atomic.Pointer[io.Writer] // writes to out
	out    *serial
}

// serial writes one line at a time.
type serial struct {
	mu sync.Mutex // guards writes to w
	w  io.Writer
}

func (s *serial) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(line)
}

func newLogWriter(out io.Writer, settings config.Log) *logWriter {
	w := &logWriter{out: &serial{w: out}}
	w.set(settings)
	return w
}

// set changes the level and the format of later lines.
func (w *logWriter) set(settings config.Log) {
	level, err := zerolog.ParseLevel(settings.Level)
	if err != nil {
		panic("BUG: config allows the log level " + settings.Level)
	}
	var format io.Writer = w.out
	if settings.Format == "console" {
		format = zerolog.ConsoleWriter{Out: w.out, TimeFormat: "15:04:05.000", NoColor: !IsTerminal(w.out.w)}
	}
	w.format.Store(&format)
	w.level.Store(int32(level))
}

// IsTerminal reports whether a reader or writer is a file that is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// Write writes a line without a level.
func (w *logWriter) Write(line []byte) (int, error) { return (*w.format.Load()).Write(line) }

// WriteLevel implements zerolog.LevelWriter.
func (w *logWriter) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	if level < zerolog.Level(w.level.Load()) {
		return len(line), nil
	}
	return w.Write(line)
}

// logger returns a logger that writes to w.
func (w *logWriter) logger() zerolog.Logger {
	return zerolog.New(w).With().Timestamp().Logger()
}
