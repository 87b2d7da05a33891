// Command canary shows the release of a new version with a real Consul on this machine. It needs
// only Go, and ends by itself after about ten seconds:
//
//	go run ./examples/canary
//
// Instances of version 2 register with the tag v2. While 250 requests a second go on, their share
// becomes 5 %, 50 % and 100 %, and then 50 % again for a release that fails: a judge sets its share to
// 0. The instances are part of this program; Consul and sluice are processes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/test/consultest"
	"sluice/test/sluicetest"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "\ncanary:", err)
		os.Exit(1)
	}
}

const (
	perSecond = 250
	enough    = 200 // requests that show how a share divides them
)

// configuration is sluice's, with Consul's address and the share of the canary.
const configuration = `consul: { addresses: [%q] }
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
	out       io.Writer
	directory string
	consul    *consultest.Agent
	sluice    *sluicetest.Sluice
	load      *sluicetest.Load
	instances []*instance
}

// run shows the release and removes everything.
func run(ctx context.Context, out io.Writer) (err error) {
	r := &rollout{out: out}
	defer func() { err = errors.Join(err, r.clear()) }()
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
		r.line("%-58s %4d requests, %d by version 2, %d failed", step.title, now.Requests, byVersion2(now), now.Failed)
		if now.Failed > 0 {
			return fmt.Errorf("%s: requests failed:\n%s", step.title, strings.Join(now.Failures, "\n"))
		}
	}
	return r.fail(ctx)
}

func (r *rollout) line(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

func (r *rollout) start(ctx context.Context) (err error) {
	if r.directory, err = os.MkdirTemp("", "sluice-canary-"); err != nil {
		return err
	}
	r.line("Building sluice, and starting Consul, two instances of version 1 and sluice.")
	built := make(chan error, 1)
	go func() { built <- sluicetest.Build(ctx, r.directory, "sluice") }()
	r.consul, err = consultest.StartAgent(ctx, consultest.Options{Node: "canary", Progress: r.out})
	if err == nil {
		err = r.register("v1", 2)
	}
	if err = errors.Join(err, <-built); err != nil {
		return err
	}
	if err := r.configure("0%"); err != nil {
		return err
	}
	r.sluice, err = sluicetest.Start(ctx, sluicetest.Options{
		Program: filepath.Join(r.directory, "sluice"), Args: []string{"--config", r.file()},
		Log: filepath.Join(r.directory, "sluice.log"), Listen: sluicetest.Any, Admin: sluicetest.Any,
	})
	if err != nil {
		return err
	}
	if err := r.sluice.AwaitUp(ctx, 2); err != nil {
		return err
	}
	r.line("%d requests a second go through %s all the while.\n", perSecond, r.sluice.URL())
	r.load = sluicetest.StartLoad(r.sluice.URL(), perSecond)
	return nil
}

// register starts instances of a version.
func (r *rollout) register(version string, count int) error {
	for range count {
		i, err := startInstance(r.consul.Client(), version, len(r.instances)+1)
		if err != nil {
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
	if err := r.sluice.AwaitUp(ctx, 4); err != nil {
		return err
	}
	before := r.load.Count()
	return r.sluice.Await(ctx, sluicetest.Patience, "more requests", func(context.Context) (bool, error) {
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
		if err := r.configure(share); err != nil {
			return err
		}
		if err := r.sluice.Await(ctx, sluicetest.Patience, "the share to be in use", func(ctx context.Context) (bool, error) {
			split, err := r.split(ctx)
			return fmt.Sprintf("%g%%", 100*split.Share) == share, err
		}); err != nil {
			return err
		}
		begin := r.load.Count()
		return r.sluice.Await(ctx, sluicetest.Patience, "more requests", func(context.Context) (bool, error) {
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
	if err := r.sluice.Await(ctx, sluicetest.Patience, "the judge to set the share to 0", func(ctx context.Context) (bool, error) {
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
	if err := r.sluice.Await(ctx, sluicetest.Patience, "requests without version 2", func(context.Context) (bool, error) {
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
	r.line("%-58s %4d requests, %d failed", "version 2 fails: after "+took.Round(10*time.Millisecond).String()+" its share is 0 %", now.Requests, now.Failed)
	r.line("The judge: %s.", split.Judge.Verdict)
	return nil
}

func (r *rollout) file() string { return filepath.Join(r.directory, "sluice.yaml") }

// configure replaces the configuration, which sluice then reads.
func (r *rollout) configure(share string) error {
	text := fmt.Sprintf(configuration, r.consul.URL(), share)
	if err := os.WriteFile(r.file()+"~", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(r.file()+"~", r.file())
}

// clear ends everything and removes the files.
func (r *rollout) clear() error {
	var errs []error
	if r.load != nil {
		r.load.Stop()
	}
	if r.sluice != nil {
		errs = append(errs, r.sluice.Stop())
	}
	for _, i := range r.instances {
		errs = append(errs, i.stop())
	}
	if r.consul != nil {
		errs = append(errs, r.consul.Close())
	}
	if r.directory != "" {
		errs = append(errs, os.RemoveAll(r.directory))
	}
	return errors.Join(errs...)
}
