package roll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/admin"
	"sluice/discovery"
	"sluice/observe/wake"
)

// errWorse says that an instance is in use and worse than the others: its drain stays.
var errWorse = errors.New("worse than the others")

// step is the roll of one instance. One goroutine uses it.
type step struct {
	*rolling
	batch   []admin.Peer
	peer    admin.Peer // after the command, the one that stands in its place
	drained bool       // by somebody else: that drain stays
	ours    bool       // this step has drained it, or tried to
}

// roll rolls the instance. Unless it returns nil, the instance is not done.
func (s *step) roll(ctx, stop context.Context) error {
	err := s.through(ctx, stop)
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err == nil { // what is done is recorded also if the roll ends here
		return s.finish(undoing, InstanceOf(s.peer))
	}
	i := InstanceOf(s.peer)
	err = fmt.Errorf("%s: %w", i, err)
	s.report(Stopped, &i, err.Error())
	switch {
	case errors.Is(err, errWorse):
		if drained := s.sluice.Drain(undoing, s.peer, s.why()+": "+errWorse.Error(), 0); drained != nil {
			return errors.Join(err, drained)
		}
		s.report(Kept, &i, "it gets no requests until \"sluice enable\"")
	case s.ours:
		if enabled := s.sluice.Enable(undoing, s.peer); enabled != nil {
			return errors.Join(err, fmt.Errorf("%s is still drained: %w", i, enabled))
		}
		s.report(Enabled, &i, "it gets requests if it is well")
	}
	return err
}

func (s *step) why() string { return "roll by " + s.By }

// through takes the instance through all steps.
func (s *step) through(ctx, stop context.Context) error {
	i := InstanceOf(s.peer)
	if !s.drained {
		s.ours = true
		// If this process dies, the drain ends by itself.
		lasts := s.DrainTimeout + s.CommandTimeout + 2*s.ReturnTimeout
		if err := s.sluice.Drain(ctx, s.peer, s.why(), lasts); err != nil {
			return err
		}
	}
	if err := s.emptied(ctx); err != nil {
		return err
	}
	s.report(Drained, &i, "nothing is in flight")
	before, err := s.sluice.Peers(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(before, func(p admin.Peer) bool { return InstanceOf(p) == i && p.Drained() }) {
		return errors.New("somebody has ended its drain, or it is gone")
	}
	if err := s.command(stop); err != nil {
		return err
	}
	s.report(Ran, &i, "the command has ended")
	deadline := time.Now().Add(s.ReturnTimeout)
	again, err := s.returned(ctx, before, deadline)
	if err != nil {
		return err
	}
	if s.drained {
		s.report(Kept, &i, "it was drained before this roll, and stays so")
		s.peer = again
		return nil
	}
	if err := s.enable(ctx, again); err != nil {
		return err
	}
	s.peer, s.ours = again, false
	return s.judged(ctx, deadline)
}

// emptied waits until nothing is in flight on a drained peer.
func (s *step) emptied(ctx context.Context) error {
	deadline := time.Now().Add(s.DrainTimeout)
	return wake.Repeat(ctx, interval, func() (bool, error) {
		busy, err := s.sluice.Busy(ctx, s.peer)
		if err != nil || busy != "" {
			return false, s.late(deadline, err, fmt.Sprintf("it still has %s after %v", busy, s.DrainTimeout))
		}
		return true, nil
	})
}

// command runs the command for an instance.
func (s *step) command(stop context.Context) error {
	command, err := expand(s.Command, s.Service, s.peer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(stop, s.CommandTimeout, fmt.Errorf("the command has not ended within %v", s.CommandTimeout))
	defer cancel()
	return s.Run(ctx, command)
}

// returned waits until the registry has the instance passing, without a break, for as long as its
// checks may need to notice that it is not well.
func (s *step) returned(ctx context.Context, before []admin.Peer, deadline time.Time) (again admin.Peer, err error) {
	var settle time.Duration
	var since time.Time
	waitsFor := "it is not registered"
	err = wake.Repeat(ctx, interval, func() (bool, error) {
		peers, err := s.sluice.Peers(ctx)
		if err != nil {
			return false, s.late(deadline, err, "")
		}
		successor, ok := s.successor(before, peers)
		switch {
		case !ok:
			waitsFor, since = "it is not registered", time.Time{}
		case !isWell(successor):
			waitsFor, since = "Consul has it "+successor.Status, time.Time{}
		case since.IsZero() || InstanceOf(successor) != InstanceOf(again):
			if settle, err = s.settle(ctx, successor); err != nil {
				return false, s.late(deadline, err, "")
			}
			again, since = successor, time.Now()
		}
		if !since.IsZero() && time.Since(since) >= settle {
			stale, err := s.sluice.Stale(ctx)
			if err == nil && stale == "" {
				return true, nil
			}
			waitsFor, since = stale, time.Time{} // what was seen proves nothing
		}
		if !since.IsZero() {
			waitsFor = fmt.Sprintf("it is passing for %v, want %v", time.Since(since).Round(time.Second), settle)
		}
		return false, s.late(deadline, nil, fmt.Sprintf("%s, %v after the command", waitsFor, s.ReturnTimeout))
	})
	if err == nil {
		i := InstanceOf(again)
		s.report(Returned, &i, fmt.Sprintf("passing for %v", settle.Round(time.Millisecond)))
	}
	return again, err
}

func isWell(p admin.Peer) bool {
	return p.Status == discovery.StatusPassing.String() || p.Status == discovery.StatusWarning.String()
}

// settle returns how long an instance has to be passing.
func (s *step) settle(ctx context.Context, p admin.Peer) (time.Duration, error) {
	if s.Settle > 0 {
		return s.Settle, nil
	}
	d, err := s.CheckTime(ctx, p)
	if err != nil {
		return 0, fmt.Errorf("the checks of %s in Consul: %w", InstanceOf(p), err)
	}
	return max(d, time.Second), nil
}

// successor returns the peer that stands for the instance after its command: the one with its id,
// or, if there is none, one on its node that was not there before and stands for no other.
func (s *step) successor(before, peers []admin.Peer) (admin.Peer, bool) {
	p := s.peer
	peers = slices.DeleteFunc(registered(peers), func(c admin.Peer) bool { return c.Node != p.Node || c.Datacenter != p.Datacenter })
	same := func(c admin.Peer) bool { return c.ID == p.ID }
	if found := slices.IndexFunc(peers, same); found >= 0 {
		return peers[found], true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(peers, func(a, b admin.Peer) int { return cmp.Compare(a.ID, b.ID) })
	for _, c := range peers {
		known := func(old admin.Peer) bool { return InstanceOf(old) == InstanceOf(c) }
		if owner, claimed := s.claimed[InstanceOf(c)]; !slices.ContainsFunc(before, known) && (!claimed || owner == InstanceOf(p)) {
			s.claimed[InstanceOf(c)] = InstanceOf(p)
			return c, true
		}
	}
	return admin.Peer{}, false
}

// enable ends the drain of an instance, and of the one that stands in its place if it has another
// id or address: a drain is about all three.
func (s *step) enable(ctx context.Context, again admin.Peer) error {
	if err := s.sluice.Enable(ctx, s.peer); err != nil {
		return err
	}
	if InstanceOf(again) != InstanceOf(s.peer) && again.Drained() {
		return s.sluice.Enable(ctx, again)
	}
	return nil
}
