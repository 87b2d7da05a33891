package pinned

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"
)

// progressEvery is the time between two lines of progress.
const progressEvery = 5 * time.Second

// goProgress counts the lines of "go build -v", and writes a line of progress periodically.
// The exec package calls Write from one goroutine.
type goProgress struct {
	title string
	to    io.Writer
	begin time.Time

	rest       []byte // an incomplete line
	downloaded int    // modules
	compiled   int    // packages
	lastLine   time.Time
	errors     []string // other lines
}

func (p *goProgress) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		line, rest, complete := bytes.Cut(p.rest, []byte("\n"))
		if !complete {
			return len(b), nil
		}
		p.count(string(line))
		p.rest = rest
	}
}

func (p *goProgress) count(line string) {
	switch {
	case strings.HasPrefix(line, "go: downloading "):
		p.downloaded++
	case !strings.ContainsAny(line, " :#"): // a package path
		p.compiled++
	default:
		p.errors = append(p.errors, line)
	}
	if now := time.Now(); now.Sub(p.lastLine) >= progressEvery {
		p.lastLine = now
		fmt.Fprintf(p.to, "building %s: %d modules downloaded, %d packages compiled, %v\n",
			p.title, p.downloaded, p.compiled, now.Sub(p.begin).Round(time.Second))
	}
}

// tail returns the last lines with errors.
func (p *goProgress) tail() string {
	lines := append(p.errors, string(p.rest))
	return strings.TrimSpace(strings.Join(lines[max(0, len(lines)-20):], "\n"))
}
