// Command canary shows the release of a new version with a real Consul on this machine. It needs
// only Go, and ends by itself after about ten seconds:
//
//	go run ./examples/canary
//
// Instances of version 2 register with the tag v2. While 250 requests a second go on, their share
// becomes 5 %, 50 % and 100 %, and then 50 % again for a release that fails: a judge sets its share
// to
// 0. The instances are part of this program; Consul and sluice are processes.
package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/test/sluicetest"
	"sluice/test/stage"
)

func main() { stage.Run("canary", show) }

const (
	perSecond = 250
	enough    = 200 // requests that show how a share divides them
)

// configuration is sluice's, with Consul's address and the share of the canary.
const configuration = `consul: { addresses: [%q] }
listeners: [{ name: web, address: "127.0.0.1:0" }]
services:
  star:
    consul: {}
    groups: { canary: { tags: [v2] } }
    split: { canary: %s, key: none, fallback: rest }
    judge: { act: rollback }
routes: [{ service: star }]
`

// rollout is what runs.
type rollout struct {
	*stage.Stage
	load      *sluicetest.Load
	instances []*instance
}

// show shows the release.
func show(ctx context.Context, on *stage.Stage) error {
	r := &rollout{Stage: on}
	if err := r.start(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"two instances of version 2 register; their share is 0 %", r.registerCanary},
		{"share 5 %", r.shift("5%")},
		{"share 50 %", r.shift("50%")},
		{"share 100 %", r.shift("100%")},
		{"share 50 %: as for a new release", r.shift("50%")},
	} {
		before := r.load.Count()
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
		now := r.load.Count().Since(before)
		r.Line("%-58s %4d requests, %d by version 2, %d failed", step.title, now.Requests, byVersion2(now), now.Failed)
		if now.Failed > 0 {
			return fmt.Errorf("%s: requests failed:\n%s", step.title, strings.Join(now.Failures, "\n"))
		}
	}
	return r.fail(ctx)
}

func (r *rollout) start(ctx context.Context) error {
	r.Line("Building sluice, and starting Consul, two instances of version 1 and sluice.")
	if err := r.StartConsul(ctx); err != nil {
		return err
	}
	if err := r.register("v1", 2); err != nil {
		return err
	}
	if err := r.Serve(ctx, r.configuration("0%")); err != nil {
		return err
	}
	if err := r.AwaitUp(ctx, 2); err != nil {
		return err
	}
	r.Line("%d requests a second go through %s all the while.\n", perSecond, r.URL())
	r.load = r.StartLoad("", perSecond)
	return nil
}

// register starts instances of a version.
func (r *rollout) register(version string, count int) error {
	for range count {
		i := &instance{id: fmt.Sprintf("%s-star-%d", version, len(r.instances)+1), version: version}
		if err := r.StartApp("star", i.id, []string{version}, i); err != nil {
			return err
		}
		r.instances = append(r.instances, i)
	}
	return nil
}

func (r *rollout) registerCanary(ctx context.Context) error {
	if err := r.register("v2", 2); err != nil {
		return err
	}
	if err := r.AwaitUp(ctx, 4); err != nil {
		return err
	}
	before := r.load.Count()
	return r.Await(ctx, sluicetest.Patience, "more requests", func(context.Context) (bool, error) {
		now := r.load.Count().Since(before)
		if n := byVersion2(now); n > 0 {
			return false, fmt.Errorf("%d requests reached version 2", n)
		}
		return now.Requests >= enough/2, nil
	})
}

// shift gives the canary a share, and waits until requests are divided so.
func (r *rollout) shift(share string) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := r.Configure(r.configuration(share)); err != nil {
			return err
		}
		if err := r.Await(ctx, sluicetest.Patience, "the share to be in use", func(ctx context.Context) (bool, error) {
			split, err := r.split(ctx)
			return fmt.Sprintf("%g%%", 100*split.Share) == share, err
		}); err != nil {
			return err
		}
		begin := r.load.Count()
		return r.Await(ctx, sluicetest.Patience, "more requests", func(context.Context) (bool, error) {
			now := r.load.Count().Since(begin)
			return now.Requests >= enough && byVersion2(now) > 0, nil
		})
	}
}

// fail makes version 2 answer with errors, and waits until its share is 0.
func (r *rollout) fail(ctx context.Context) error {
	before, begin := r.load.Count(), time.Now()
	for _, i := range r.instances {
		i.broken.Store(i.version == "v2")
	}
	if err := r.Await(ctx, sluicetest.Patience, "the judge to set the share to 0", func(ctx context.Context) (bool, error) {
		split, err := r.split(ctx)
		return err == nil && split.Share == 0, err
	}); err != nil {
		return err
	}
	took := time.Since(begin)
	split, err := r.split(ctx)
	if err != nil {
		return err
	}
	after := r.load.Count()
	if err := r.Await(ctx, sluicetest.Patience, "requests without version 2", func(context.Context) (bool, error) {
		now := r.load.Count().Since(after)
		if now.Failed > 0 || byVersion2(now) > 0 { // they were on the way
			after = r.load.Count()
			return false, nil
		}
		return now.Requests >= enough/2, nil
	}); err != nil {
		return err
	}
	r.load.Stop()
	now := r.load.Count().Since(before)
	r.Line("%-58s %4d requests, %d failed", "version 2 fails: after "+took.Round(10*time.Millisecond).String()+" its share is 0 %", now.Requests, now.Failed)
	r.Line("The judge: %s.", split.Judge.Verdict)
	return nil
}

func (r *rollout) configuration(share string) string {
	return fmt.Sprintf(configuration, r.Consul.URL(), share)
}
