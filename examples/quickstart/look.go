package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/test/sluicetest"
)

const (
	lookEvery   = 100 * time.Millisecond
	looksPerSec = 20               // requests a second of the load in the background
	consulPause = 20 * time.Second // how long Consul stays stopped
)

// look explains what to try, and prints changes until Ctrl-C.
func look(ctx context.Context, out *printer, s *stage) error {
	explain(out, s, s.nextPort())
	load := sluicetest.StartLoad(s.sluice.URL(), looksPerSec)
	defer load.Stop()
	v := &view{out: out, stage: s, load: load}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			count := load.Count()
			out.line("\n%d requests, %d failed.", count.Requests, count.Failed)
			return ctx.Err()
		case <-s.sluice.Exited():
			return fmt.Errorf("sluice has ended: %v", s.sluice.Err())
		case <-tick.C:
		}
		if err := v.refresh(ctx); err != nil {
			return err
		}
	}
}

// explain prints addresses and commands to copy.
func explain(out *printer, s *stage, nextPort string) {
	out.line("sluice    %s      curl it: the apps answer in turn", s.sluice.URL())
	out.line("peers     %s      live; as JSON: %s/api/peers", s.sluice.AdminURL(), s.sluice.AdminURL())
	if s.real {
		out.line("Consul    %s/ui/", s.consul.URL())
	} else {
		out.line("Consul    %s/v1/health/service/%s", s.consul.URL(), service)
	}
	out.line("")
	out.line("Three things to try, from another terminal:")
	out.line("  1. kill an app        kill -9 %d", s.apps[0].PID())
	out.line("  2. start one more     %s -port %s -consul %s", s.program("goapp"), nextPort, s.consul.URL())
	out.line("  3. stop Consul        kill %d", s.consul.Process().PID())
	out.line("")
	out.line("%d requests a second go through sluice meanwhile. Ctrl-C ends everything. What changes:", looksPerSec)
	out.line("")
}

// view prints the differences since its last look.
type view struct {
	out   *printer
	stage *stage
	load  *sluicetest.Load

	peers   map[string]sluicetest.Peer
	watch   sluicetest.Watch
	failed  int       // last printed number
	revival time.Time // when to start Consul again; zero while it runs
}

func (v *view) refresh(ctx context.Context) error {
	changed, err := v.refreshPeers(ctx)
	if err != nil {
		return err
	}
	watch, err := v.stage.sluice.Watch(ctx, service)
	if err != nil {
		return err
	}
	if watch.State != v.watch.State {
		if v.watch.State != "" {
			v.out.event("what sluice knows from Consul is %s%s", watch.State, explainWatch(watch))
			changed = true
		}
		v.watch = watch
	}
	if count := v.load.Count(); changed || count.Failed != v.failed {
		v.failed = count.Failed
		v.out.event("    %d requests so far, %d failed", count.Requests, count.Failed)
	}
	return v.tendConsul(ctx)
}

// refreshPeers reports whether a change was printed.
func (v *view) refreshPeers(ctx context.Context) (changed bool, err error) {
	list, err := v.stage.sluice.Peers(ctx)
	if err != nil {
		return false, err
	}
	peers := make(map[string]sluicetest.Peer, len(list))
	for _, p := range list {
		peers[p.ID] = p
		if old, known := v.peers[p.ID]; !known || old.State != p.State {
			v.out.event("%-10s %s  %s%s", p.ID, p.Address, p.State, explainPeer(p))
			changed = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(v.peers)) {
		if _, still := peers[id]; !still {
			v.out.event("%-10s %s  gone", id, v.peers[id].Address)
			changed = true
		}
	}
	v.peers = peers
	return changed, nil
}

// tendConsul starts Consul again some time after the user has stopped it.
func (v *view) tendConsul(ctx context.Context) error {
	if v.revival.IsZero() {
		select {
		case <-v.stage.consul.Process().Exited():
			v.revival = time.Now().Add(consulPause)
			v.out.event("Consul has ended; sluice goes on with the peers it knows. Consul comes back in %v.", consulPause)
		default:
		}
		return nil
	}
	if time.Now().Before(v.revival) {
		return nil
	}
	if err := v.stage.consul.Restart(ctx); err != nil {
		return err
	}
	v.revival = time.Time{}
	v.out.event("Consul runs again, as process %d", v.stage.consul.Process().PID())
	return nil
}

func explainPeer(p sluicetest.Peer) string {
	if len(p.Reasons) == 0 {
		return ""
	}
	return " (" + strings.Join(p.Reasons, "; ") + ")"
}

func explainWatch(w sluicetest.Watch) string {
	if w.LastError == "" {
		return ""
	}
	return ": " + w.LastError
}
