// Package logs writes the log of sluice, whose level and format change while it runs.
package logs

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"sluice/observe/panics"
)

// Writer writes log lines, one at a time. Its level and format can change at any time. Its methods
// may be called concurrently.
type Writer struct {
	level  atomic.Int32              // a zerolog.Level; lines below it are dropped
	format atomic.Pointer[io.Writer] // writes to out
	out    *serial
}

// blockedAfter is how long the output may take for a line before nobody waits for it any more.
const blockedAfter = time.Second

// serial writes one line at a time. Lines are lost while the output is blocked, such as a pipe
// whose reader has stopped: what sluice does must not wait for people who read of it.
type serial struct {
	w     io.Writer
	turn  chan struct{} // full while a line is written
	began atomic.Int64  // when that was, by the wall clock
	lost  atomic.Uint64 // lines
}

func (s *serial) Write(line []byte) (int, error) {
	select {
	case s.turn <- struct{}{}:
	default:
		select {
		case s.turn <- struct{}{}:
		case <-time.After(min(blockedAfter-time.Since(time.Unix(0, s.began.Load())), blockedAfter)): // also if the clock was set back
			s.lost.Add(1)
			return len(line), nil
		}
	}
	s.began.Store(time.Now().UnixNano())
	text, written := bytes.Clone(line), make(chan error, 1) // the logger uses line again
	go func() {
		defer panics.Contain(panics.Task, nil)
		defer func() { <-s.turn }()
		_, err := s.w.Write(text)
		written <- err
	}()
	blocked := time.NewTimer(blockedAfter)
	defer blocked.Stop()
	select {
	case err := <-written:
		return len(line), err
	case <-blocked.C:
		return len(line), nil
	}
}

// New returns a writer to out: see [Writer.Set].
func New(out io.Writer, level zerolog.Level, format string) *Writer {
	w := &Writer{out: &serial{w: out, turn: make(chan struct{}, 1)}}
	w.Set(level, format)
	return w
}

// Set changes the level and the format of later lines: json, console for people, or auto, which is
// console on a terminal and json elsewhere. Lines have colors on a terminal, unless NO_COLOR is
// set.
func (w *Writer) Set(level zerolog.Level, format string) {
	terminal := IsTerminal(w.out.w)
	var out io.Writer = w.out
	if format == "console" || format == "auto" && terminal {
		out = zerolog.ConsoleWriter{Out: w.out, TimeFormat: "15:04:05.000", NoColor: !terminal, FormatPrepare: quoteMessage}
	}
	w.format.Store(&out)
	w.level.Store(int32(level))
}

// quoteMessage quotes a message with characters that control a terminal or that nobody sees, as
// ConsoleWriter quotes fields: a message may have the id of an instance.
func quoteMessage(line map[string]any) error {
	if text, _ := line[zerolog.MessageFieldName].(string); strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		line[zerolog.MessageFieldName] = strconv.Quote(text)
	}
	return nil
}

// Level returns the level; lines below it are dropped.
func (w *Writer) Level() zerolog.Level { return zerolog.Level(w.level.Load()) }

// IsTerminal reports whether a reader or writer is a file that is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Write writes a line without a level.
func (w *Writer) Write(line []byte) (int, error) { return (*w.format.Load()).Write(line) }

// WriteLevel implements zerolog.LevelWriter.
func (w *Writer) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	if level < w.Level() {
		return len(line), nil
	}
	if lost := w.out.lost.Swap(0); lost > 0 {
		log := w.Logger()
		log.Warn().Uint64("lines", lost).Msg("the log was blocked: lines are lost")
	}
	return w.Write(line)
}

// Logger returns a logger that writes to w.
func (w *Writer) Logger() zerolog.Logger {
	return zerolog.New(w).With().Timestamp().Logger()
}
