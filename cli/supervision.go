package cli

import (
	"os"
	"syscall"
	"time"

	"sluice/consul/app"
)

// supervision is a running app of the register command. One goroutine uses it.
type supervision struct {
	*registering
	registration *app.Registration
	program      *child
	leave        func()       // makes the registration leave Consul
	left         <-chan error // gets the result of the registration; nil: it has been received

	stopSignal syscall.Signal   // the first of the signals that stop; 0: none
	signaled   bool             // the app got it
	kill       <-chan time.Time // when the app is killed; nil: not yet known
	failure    error            // of the check at the start
	told       bool             // a signal has come since that
}

// run passes on signals until the app has ended, deregisters it, and returns its exit
// status.
func (s *supervision) run(signals <-chan os.Signal) error {
	for {
		select {
		case received := <-signals:
			s.handle(received.(syscall.Signal))
		case s.failure = <-s.left: // after the drain, or without a registration
			s.left = nil
			if s.stopSignal == 0 { // the check has failed
				s.stopSignal = syscall.SIGTERM
			}
			s.stop()
		case <-s.kill:
			s.kill = nil
			s.log.Warn().Stringer("stop_timeout", s.stopTimeout).Msg("the app has not ended within the stop timeout: it is killed")
			s.program.kill()
		case <-s.program.exited:
			return s.end()
		}
	}
}

func (s *supervision) handle(received syscall.Signal) {
	switch received {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
	case syscall.SIGCHLD:
		s.program.reapAdopted()
		return
	default:
		s.program.signal(received)
		return
	}
	switch {
	case s.failure != nil && !s.told: // who sends it cannot know that the app stops
		s.told = true
		s.log.Info().Stringer("signal", received).Msg("the app stops already, since it has not passed its check; another signal kills it")
	case s.stopSignal == 0:
		s.stopSignal = received
		s.leave()
	case !s.signaled:
		s.log.Info().Stringer("signal", received).Msg("another signal ends the drain")
		s.registration.Cut()
		s.stop()
	default:
		s.log.Warn().Stringer("signal", received).Msg("another signal kills the app")
		s.program.kill()
	}
}

// stop passes the signal on to the app, once.
func (s *supervision) stop() {
	if s.signaled {
		return
	}
	s.signaled = true
	s.program.signal(s.stopSignal)
	s.kill = time.After(s.stopTimeout)
}

// end deregisters the app, which has ended, and returns its exit status.
func (s *supervision) end() error {
	status := s.program.status
	if s.stopSignal == 0 {
		s.log.Warn().Int("status", status).Msg("the app has ended by itself")
	} else {
		s.log.Info().Int("status", status).Msg("the app has ended")
	}
	s.leave()
	s.registration.Cut()
	if s.left != nil {
		<-s.left
	}
	s.program.endGroup(s.stopTimeout)
	switch {
	case s.failure != nil:
		return &exitError{exitFailed, s.failure}
	case status != 0:
		return &exitError{status, nil}
	}
	return nil
}
