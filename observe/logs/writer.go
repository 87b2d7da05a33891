// Package logs writes the log of sluice, whose level and format change while it runs.
package logs

import (
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// Writer writes log lines, one at a time. Its level and format can change at any time. Its methods may
// be called concurrently.
type Writer struct {
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

// New returns a writer to out: see [Writer.Set].
func New(out io.Writer, level zerolog.Level, console bool) *Writer {
	w := &Writer{out: &serial{w: out}}
	w.Set(level, console)
	return w
}

// Set changes the level and the format of later lines: JSON, or for people.
func (w *Writer) Set(level zerolog.Level, console bool) {
	var format io.Writer = w.out
	if console {
		format = zerolog.ConsoleWriter{Out: w.out, TimeFormat: "15:04:05.000", NoColor: !IsTerminal(w.out.w), FormatPrepare: quoteMessage}
	}
	w.format.Store(&format)
	w.level.Store(int32(level))
}

// quoteMessage quotes a message with control characters, as ConsoleWriter quotes fields: a message may have the
// id of an instance.
func quoteMessage(line map[string]any) error {
	if text, _ := line[zerolog.MessageFieldName].(string); strings.ContainsFunc(text, unicode.IsControl) {
		line[zerolog.MessageFieldName] = strconv.Quote(text)
	}
	return nil
}

// Level returns the level; lines below it are dropped.
func (w *Writer) Level() zerolog.Level { return zerolog.Level(w.level.Load()) }

// IsTerminal reports whether a reader or writer is a file that is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// Write writes a line without a level.
func (w *Writer) Write(line []byte) (int, error) { return (*w.format.Load()).Write(line) }

// WriteLevel implements zerolog.LevelWriter.
func (w *Writer) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	if level < w.Level() {
		return len(line), nil
	}
	return w.Write(line)
}

// Logger returns a logger that writes to w.
func (w *Writer) Logger() zerolog.Logger {
	return zerolog.New(w).With().Timestamp().Logger()
}
