package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
)

const (
	tourRate  = 100             // requests per second
	keepGoing = 3 * time.Second // how long Consul is stopped
)

// tour runs the steps of the quickstart under a constant load, and checks the result of each.
func tour(ctx context.Context, out *printer, s *stage) error {
	out.line("%d requests a second go through %s all the while.\n", tourRate, s.sluice.URL())
	t := &walk{out: out, stage: s, load: sluicetest.StartLoad(s.sluice.URL(), tourRate)}
	defer t.load.Stop()
	for _, step := range []struct {
		title string
		do    func(context.Context) (string, error)
	}{
		{"three apps registered themselves: each of them answers", t.allAnswer},
		{"kill an app with SIGKILL: it gets no more requests, and none is lost", t.killApp},
		{"start one more: it is served as soon as it is healthy", t.startApp},
		{"end an app with SIGTERM: it deregisters and leaves the pool at once", t.endApp},
		{"stop Consul: sluice goes on with what it knows, and says that this is stale", t.stopConsul},
		{"start Consul again: what sluice knows is fresh again", t.startConsul},
	} {
		before := t.load.Count()
		out.event("%s", step.title)
		result, err := step.do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
		count := t.load.Count().Since(before)
		out.event("    %s; %d requests, %d failed", result, count.Requests, count.Failed)
	}
	t.load.Stop()
	return t.summary()
}

// walk is the state of a tour.
type walk struct {
	out   *printer
	stage *stage
	load  *sluicetest.Load
}

func (t *walk) summary() error {
	count := t.load.Count()
	if count.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first of them:\n%s\nend of sluice's log:\n%s",
			count.Failed, count.Requests, joinLines(count.Failures), t.stage.sluice.LogTail(40))
	}
	t.out.line("\nAll as promised: %d requests, none failed.", count.Requests)
	return nil
}

func (t *walk) allAnswer(ctx context.Context) (string, error) {
	for _, a := range t.stage.apps {
		if err := t.awaitAnswer(ctx, a); err != nil {
			return "", err
		}
	}
	return "all three answered", nil
}

func (t *walk) killApp(ctx context.Context) (string, error) {
	victim := t.stage.apps[0]
	begin := time.Now()
	if err := victim.Kill(); err != nil {
		return "", err
	}
	err := t.stage.sluice.Await(ctx, sluicetest.Patience, "Consul to find that "+victim.id+" is dead", func(context.Context) (bool, error) {
		status, err := t.status(victim)
		return status != api.HealthPassing, err
	})
	if err != nil {
		return "", err
	}
	known := time.Now()
	err = t.stage.sluice.Await(ctx, consultest.Prompt, victim.id+" to leave the peers that are up", func(context.Context) (bool, error) {
		p, found, err := t.peer(ctx, victim)
		return !found || p.State != "up", err
	})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("out after %v, %v after Consul's check of every second had found it dead", since(begin), since(known)), nil
}

func (t *walk) startApp(ctx context.Context) (string, error) {
	begin := time.Now()
	a, err := t.stage.startApp()
	if err != nil {
		return "", err
	}
	if err := t.awaitPassing(ctx, a); err != nil {
		return "", err
	}
	err = t.stage.sluice.Await(ctx, consultest.Prompt, a.id+" to be up", func(context.Context) (bool, error) {
		p, _, err := t.peer(ctx, a)
		return p.State == "up", err
	})
	if err != nil {
		return "", err
	}
	if err := t.awaitAnswer(ctx, a); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s answers %v after its start", a.id, since(begin)), nil
}

func (t *walk) endApp(ctx context.Context) (string, error) {
	a := t.stage.apps[1]
	begin := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- a.Stop() }()
	err := t.stage.sluice.Await(ctx, sluicetest.Patience, a.id+" to deregister", func(context.Context) (bool, error) {
		status, err := t.status(a)
		return status == "", err
	})
	if err == nil {
		err = t.stage.sluice.Await(ctx, consultest.Prompt, a.id+" to leave /api/peers", func(context.Context) (bool, error) {
			_, found, err := t.peer(ctx, a)
			return !found, err
		})
	}
	gone := since(begin)
	if stopErr := <-ended; stopErr != nil {
		return "", stopErr
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("gone from /api/peers %v after the signal", gone), nil
}

func (t *walk) stopConsul(ctx context.Context) (string, error) {
	if err := t.stage.consul.Stop(); err != nil {
		return "", err
	}
	if err := t.awaitWatch(ctx, "stale"); err != nil {
		return "", err
	}
	before := t.load.Count()
	timer := time.NewTimer(keepGoing)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case <-timer.C:
	}
	served := t.load.Count().Since(before)
	if len(served.ByApp) == 0 {
		return "", errors.New("nobody answered without Consul")
	}
	return fmt.Sprintf("%v without Consul, everything served", keepGoing), nil
}

func (t *walk) startConsul(ctx context.Context) (string, error) {
	if err := t.stage.consul.Launch(ctx); err != nil {
		return "", err
	}
	begin := time.Now()
	if err := t.awaitWatch(ctx, "fresh"); err != nil {
		return "", err
	}
	fresh := since(begin)
	if err := t.stage.sluice.AwaitUp(ctx, 2); err != nil {
		return "", err
	}
	return fmt.Sprintf("fresh %v after Consul was ready, both apps up", fresh), nil
}

// awaitAnswer waits until a has answered a request of the load. A peer that was slow gets
// fewer requests for some time, so there is no limit for the first response.
func (t *walk) awaitAnswer(ctx context.Context, a *app) error {
	return t.stage.sluice.Await(ctx, sluicetest.Patience, a.id+" to answer", func(context.Context) (bool, error) {
		return t.load.Count().ByApp[a.id] > 0, nil
	})
}

// awaitPassing waits until a passes in Consul.
func (t *walk) awaitPassing(ctx context.Context, a *app) error {
	return t.stage.sluice.Await(ctx, sluicetest.Patience, a.id+" to pass Consul's check", func(context.Context) (bool, error) {
		status, err := t.status(a)
		return status == api.HealthPassing, err
	})
}

// status returns the status of a in Consul, or "" if it is not registered.
func (t *walk) status(a *app) (string, error) {
	entries, _, err := t.stage.consul.Client().Health().Service(service, "", false, nil)
	for _, e := range entries {
		if e.Service.ID == a.id {
			return e.Checks.AggregatedStatus(), err
		}
	}
	return "", err
}

func (t *walk) awaitWatch(ctx context.Context, state string) error {
	return t.stage.sluice.Await(ctx, consultest.Prompt, "the watch to be "+state, func(context.Context) (bool, error) {
		w, err := t.stage.sluice.Watch(ctx, service)
		return w.State == state, err
	})
}

// peer looks a up in /api/peers.
func (t *walk) peer(ctx context.Context, a *app) (p sluicetest.Peer, found bool, err error) {
	peers, err := t.stage.sluice.Peers(ctx)
	if err != nil {
		return p, false, err
	}
	i := slices.IndexFunc(peers, func(p sluicetest.Peer) bool { return p.ID == a.id })
	if i < 0 {
		return p, false, nil
	}
	return peers[i], true, nil
}

// since returns the rounded time since a moment.
func since(begin time.Time) time.Duration { return time.Since(begin).Round(time.Millisecond) }

func joinLines(lines []string) string {
	text := ""
	for _, line := range lines {
		text += "  " + line + "\n"
	}
	return text
}
