package socket

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
)

// A pipe is the pipe that splice(2) requires.
type pipe struct {
	r, w int
	size int
}

const (
	pipeBytes = 256 << 10
	fcntlSet  = 1031 // F_SETPIPE_SZ
)

var (
	// pipes are empty. A finalizer closes pipes that the pool drops.
	pipes sync.Pool
	// pipesInUse is how many are not in pipes, at most maxPipes.
	pipesInUse atomic.Int64
	maxPipes   = func() int64 {
		var limit syscall.Rlimit
		_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
		return int64(MaxPipes(limit.Cur))
	}()
)

var errPipes = errors.New("too many pipes are in use")

// acquirePipe returns an empty pipe, for release.
func acquirePipe() (*pipe, error) {
	if pipesInUse.Add(1) > maxPipes {
		pipesInUse.Add(-1)
		return nil, errPipes
	}
	if p, ok := pipes.Get().(*pipe); ok {
		return p, nil
	}
	var ends [2]int
	if err := syscall.Pipe2(ends[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		pipesInUse.Add(-1)
		return nil, os.NewSyscallError("pipe2", err)
	}
	p := &pipe{r: ends[0], w: ends[1], size: 64 << 10}
	if n, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(p.w), fcntlSet, pipeBytes); errno == 0 {
		p.size = int(n)
	}
	runtime.SetFinalizer(p, (*pipe).close)
	return p, nil
}

// release ends the use of a pipe, which has that many bytes.
func (p *pipe) release(inPipe int) {
	pipesInUse.Add(-1)
	if inPipe == 0 {
		pipes.Put(p)
	} else {
		p.close()
	}
}

func (p *pipe) close() {
	runtime.SetFinalizer(p, nil)
	syscall.Close(p.r)
	syscall.Close(p.w)
}

// A splicer moves bytes from one socket to another without copying them to user
// space. It is used for one body at a time.
type splicer struct {
	pipe   *pipe
	left   int64 // bytes to read
	inPipe int
	sink   Side
	pace   *Pace // of the sink
	moved  bool  // bytes were written to the sink since the last wait
	err    error

	allRead *atomic.Bool

	onSource, onSink func(fd uintptr) bool // fill and drain as values: creating them allocates
}

var splicers = sync.Pool{New: func() any {
	s := new(splicer)
	s.onSource, s.onSink = s.fill, s.drain
	return s
}}

// Splice moves n bytes from source to sink and adds the number of written bytes to
// moved. pace is the sink's. If allRead is not nil, it is set when all bytes are
// read, before the last ones are written. ok is false if no pipe is available; then
// no bytes were moved.
func Splice(sink, source Side, pace *Pace, n int64, moved *int64, allRead *atomic.Bool) (ok, sourceFailed bool, err error) {
	p, err := acquirePipe()
	if err != nil {
		return false, false, nil
	}
	s := splicers.Get().(*splicer)
	defer splicers.Put(s)
	defer func() { p.release(s.inPipe) }()
	s.pipe, s.left, s.inPipe, s.allRead = p, n, 0, allRead
	s.sink, s.pace = sink, pace
	for s.left > 0 && err == nil {
		if err = s.read(&source); err != nil {
			sourceFailed = true
			break
		}
		filled := s.inPipe
		err = s.write()
		*moved += int64(filled - s.inPipe)
	}
	s.pipe, s.allRead, s.sink, s.pace = nil, nil, Side{}, nil
	return true, sourceFailed, err
}

// read reads into the pipe, which is empty.
func (s *splicer) read(source *Side) error {
	source.Entry.Arm(source.Sweeper, source.Timeout)
	defer source.Entry.Disarm()
	s.err = nil
	if err := source.Entry.read(source.Sweeper, source.Raw, s.onSource); err != nil {
		return err
	}
	return s.err
}

// write empties the pipe.
func (s *splicer) write() error {
	defer s.sink.Entry.WriteDeadline.Store(0)
	s.err, s.moved = nil, true
	if err := s.sink.Entry.write(s.sink.Raw, s.onSink); err != nil {
		return err
	}
	return s.err
}

func (s *splicer) fill(fd uintptr) bool {
	n, err := spliceOnce(int(fd), s.pipe.w, int(min(s.left, int64(s.pipe.size))))
	switch {
	case err == syscall.EAGAIN:
		return false
	case err != nil:
		s.err = err
	case n == 0:
		s.err = ErrClosedEarly
	}
	s.inPipe += n
	if s.left -= int64(n); s.left == 0 && s.allRead != nil {
		s.allRead.Store(true)
	}
	return true
}

func (s *splicer) drain(fd uintptr) bool {
	for s.inPipe > 0 {
		n, err := spliceOnce(s.pipe.r, int(fd), s.inPipe)
		if err == syscall.EAGAIN {
			if !s.pace.wait(&s.sink, s.moved) {
				s.err = os.ErrDeadlineExceeded
				return true
			}
			s.moved = false
			return false
		}
		if err != nil {
			s.err = err
			return true
		}
		s.inPipe -= n
		s.moved = true
	}
	return true
}

func spliceOnce(from, to, n int) (int, error) {
	const move, nonblock = 1, 2 // SPLICE_F_MOVE, SPLICE_F_NONBLOCK
	for {
		moved, err := syscall.Splice(from, nil, to, nil, n, move|nonblock)
		if err != syscall.EINTR {
			return int(max(moved, 0)), err
		}
	}
}
