package sluicetest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Patience limits a step that takes a second or two, or more on a busy machine.
const Patience = 2 * time.Minute

// Await calls condition until it returns true without an error, at most for patience. It returns an
// error of condition only at the end, because processes are stopped and started in between. A
// sluice that ends by itself ends it.
func (s *Sluice) Await(ctx context.Context, patience time.Duration, what string, condition func(context.Context) (bool, error)) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := condition(ctx)
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Exited():
			return fmt.Errorf("sluice ended by itself: %v\n%s", s.Err(), s.LogTail(20))
		case <-timeout.C:
			return fmt.Errorf("waited %v for %s: %w\nend of sluice's log:\n%s", patience, what, errors.Join(errors.New("it did not happen"), err), s.LogTail(20))
		case <-tick.C:
		}
	}
}

// AwaitUp waits until want peers are up.
func (s *Sluice) AwaitUp(ctx context.Context, want int) error {
	return s.Await(ctx, Patience, fmt.Sprintf("%d peers to be up", want), func(ctx context.Context) (bool, error) {
		peers, err := s.Peers(ctx)
		up := 0
		for _, p := range peers {
			if p.State == "up" {
				up++
			}
		}
		return up == want, err
	})
}
