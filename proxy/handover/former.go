package handover

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/cloudflare/tableflip"
	"golang.org/x/sys/unix"

	"sluice/observe/panics"
)

// formerName is the name of the new process's end of a socket, through which it asks the old one,
// which finishes its requests.
const formerName = "former"

// askTimeout bounds how long a new process waits for an answer of the old one.
const askTimeout = 5 * time.Second

// former is the process before this one.
type former struct {
	socket  *os.File // nil: there is none
	answers *json.Decoder
	asking  chan struct{} // has an element until a question has its answer
}

// Answer returns the answer to a question of the process that replaces this one. Both are JSON.
type Answer func(question json.RawMessage) (any, error)

// AskFormer asks the process before this one. An error says that it runs and has not answered. If
// there is none, or it has ended, answer stays as it is.
func (h *Handover) AskFormer(question, answer any) error {
	f := &h.former
	if f.socket == nil {
		return nil
	}
	asked := f.ask(question, answer)
	if asked == nil {
		return nil
	}
	// tableflip learns of the end of a process a moment later.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if h.begun().WaitForParent(ctx) != nil && ctx.Err() != nil {
		return fmt.Errorf("the old process still runs and has not answered: %w", asked)
	}
	f.socket.Close()
	return nil
}

// ask asks after the answer to each earlier question has come, so that none which is late is taken
// for another one.
func (f *former) ask(question, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	select {
	case f.asking <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	var text json.RawMessage
	answered := make(chan error, 1)
	go func() {
		defer panics.Contain(panics.Task, nil)
		defer func() { <-f.asking }()
		answered <- errors.Join(json.NewEncoder(f.socket).Encode(question), f.answers.Decode(&text))
	}()
	select {
	case err := <-answered:
		return cmp.Or(err, json.Unmarshal(text, answer))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// startAnswering adds a socket to the files that a new process inherits, and answers its questions
// until the end of this process or of answering.
func startAnswering(fds *tableflip.Fds, answer Answer) (answering io.Closer, err error) {
	own, other, err := socketPair(formerName)
	if err != nil {
		return nil, err
	}
	defer other.Close() // fds has a duplicate
	if err := fds.AddFile(formerName, other); err != nil {
		own.Close()
		return nil, err
	}
	go func() {
		defer panics.Contain(panics.Task, nil)
		defer own.Close()
		questions, answers := json.NewDecoder(own), json.NewEncoder(own)
		for {
			var question json.RawMessage
			if questions.Decode(&question) != nil {
				return
			}
			answer, err := answer(question)
			if err != nil || answers.Encode(answer) != nil {
				return
			}
		}
	}()
	return own, nil
}

// socketPair returns the ends of a socket, with deadlines. No program that starts inherits them.
func socketPair(name string) (one, other *os.File, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	for _, fd := range pair {
		unix.CloseOnExec(fd)
		err = errors.Join(err, unix.SetNonblock(fd, true))
	}
	return os.NewFile(uintptr(pair[0]), name), os.NewFile(uintptr(pair[1]), name), err
}
