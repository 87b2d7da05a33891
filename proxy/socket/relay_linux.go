package socket

import "syscall"

// A relaySplicer moves the bytes of a relay within the kernel. It has a pipe only
// while it moves bytes.
type relaySplicer struct {
	relay  *relay
	pipe   *pipe
	inPipe int
	read   error // of the source
	write  error // of the sink

	onSource, onSink func(fd uintptr) bool // fill and drain as values: creating them allocates
}

// splice forwards until the source has no more bytes for now or has ended. An error is from the
// connection of the client or of the peer, as client tells. Without a pipe it does nothing.
func (s *relaySplicer) splice(r *relay) (client bool, err error) {
	if s.pipe, err = acquirePipe(); err != nil {
		return false, nil
	}
	if s.relay == nil {
		s.relay, s.onSource, s.onSink = r, s.fill, s.drain
	}
	defer func() {
		s.pipe.release(s.inPipe)
		s.pipe = nil
	}()
	for s.inPipe = 0; ; {
		s.read = nil
		if r.from.Raw.Read(s.onSource) != nil {
			return false, nil // the relay gets the same error
		}
		switch {
		case s.read != nil:
			return r.fromClient, s.read
		case s.inPipe == 0:
			return false, nil
		}
		if err := s.empty(); err != nil {
			return !r.fromClient, err
		}
	}
}

// fill reads into the pipe, which is empty. It does not wait.
func (s *relaySplicer) fill(fd uintptr) bool {
	n, err := spliceOnce(int(fd), s.pipe.w, s.pipe.size)
	if s.inPipe = n; err != nil && err != syscall.EAGAIN {
		s.read = err
	}
	return true
}

// empty empties the pipe.
func (s *relaySplicer) empty() error {
	to := s.relay.to
	defer to.Entry.WriteDeadline.Store(0)
	s.write = nil
	if err := to.Entry.write(to.Raw, s.onSink); err != nil {
		return err
	}
	return s.write
}

func (s *relaySplicer) drain(fd uintptr) bool {
	for s.inPipe > 0 {
		n, err := spliceOnce(s.pipe.r, int(fd), s.inPipe)
		s.inPipe -= n
		s.relay.moved(n)
		switch {
		case err == syscall.EAGAIN:
			s.write = s.relay.arm(s.relay.to.Entry.ArmWrite)
			return s.write != nil
		case err != nil:
			s.write = err
			return true
		}
	}
	return true
}
