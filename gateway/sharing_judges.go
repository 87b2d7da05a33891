package gateway

import (
	"context"
	"time"

	"sluice/consul"
)

const (
	// attendInterval is how often a replica without a lock tries to get one.
	attendInterval = time.Second
	// unlockTimeout bounds the last write of a process.
	unlockTimeout = time.Second
)

// judges returns the number of replicas that judge, at least 1.
func (s *sharing) judges() int {
	if s == nil {
		return 1
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(1, s.locks)
}

// leads reports whether this replica may move shares on.
func (s *sharing) leads() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.oldest && s.keys.Current()
}

func (s *sharing) lockKey() string { return s.prefix + "/judges/" + s.judge }

// attend holds a lock while this replica judges, until ctx ends.
func (s *sharing) attend(ctx context.Context) {
	failing := false
	for {
		if s.judging() {
			lock, err := s.client.Lock(ctx, s.lockKey())
			if err == nil {
				s.hold(ctx, lock)
			} else if !failing && ctx.Err() == nil {
				s.log.Warn().Err(err).Msg("this replica cannot register as a judge: it moves no share on, and others do not count it")
			}
			failing = err != nil
		}
		if consul.Sleep(ctx, attendInterval+s.client.Jitter(attendInterval/10)) != nil {
			return
		}
	}
}

// hold keeps a lock while it is held and needed.
func (s *sharing) hold(ctx context.Context, lock *consul.Lock) {
	needed := time.NewTicker(attendInterval)
	defer needed.Stop()
	for s.judging() {
		select {
		case <-needed.C:
			continue
		case <-lock.Held.Done():
		case <-ctx.Done():
		}
		break
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unlockTimeout)
	defer cancel()
	_ = lock.Unlock(ctx) // else it ends by its TTL
}
