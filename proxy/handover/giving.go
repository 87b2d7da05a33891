package handover

import (
	"errors"
	"io"
	"os"

	"github.com/cloudflare/tableflip"

	"sluice/observe/panics"
)

// giving waits for the request of a new process.
type giving struct {
	asked, given *os.File
	ended        chan struct{}
	err          error // of give; valid once ended is closed
}

// startGiving adds two pipes to the files that a new process inherits, and answers with
// give until end.
func startGiving(fds *tableflip.Fds, give func(io.Writer) error) (*giving, error) {
	asked, ask, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ask.Close() // fds has a duplicate
	take, given, err := os.Pipe()
	if err != nil {
		asked.Close()
		return nil, err
	}
	defer take.Close()
	g := &giving{asked: asked, given: given, ended: make(chan struct{})}
	if err := errors.Join(fds.AddFile(askName, ask), fds.AddFile(giveName, take)); err != nil {
		asked.Close()
		given.Close()
		return nil, err
	}
	go func() {
		defer close(g.ended)
		defer given.Close() // data in the pipe can still be read
		defer panics.Contain(panics.Task, func() { g.err = panics.Err })
		if n, _ := asked.Read(make([]byte, 1)); n > 0 {
			g.err = give(given)
		}
	}()
	return g, nil
}

// end stops the goroutine of startGiving and returns the error of give.
func (g *giving) end() error {
	g.asked.Close()
	g.given.Close() // ends a blocked write
	<-g.ended
	return g.err
}
