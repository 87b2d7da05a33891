package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// printer writes complete lines. Its methods may be called concurrently.
type printer struct {
	mu  sync.Mutex // guards out and rest
	out io.Writer

	rest string // incomplete line of Write
}

func newPrinter(out io.Writer) *printer { return &printer{out: out} }

// line prints one line.
func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// event prints a line with the time before it.
func (p *printer) event(format string, args ...any) {
	p.line("%s  %s", time.Now().Format("15:04:05.000"), fmt.Sprintf(format, args...))
}

// Write prints indented progress of other packages.
func (p *printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest += string(b)
	for {
		line, rest, complete := strings.Cut(p.rest, "\n")
		if !complete {
			return len(b), nil
		}
		fmt.Fprintf(p.out, "  %s\n", line)
		p.rest = rest
	}
}
