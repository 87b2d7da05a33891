//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/bench/quality/scenario"
)

// startAfter is the time between the start of the proxies of a group and the first request.
const startAfter = time.Second

// A group in which a request was sent later than mostDisturbed after its time says something of the
// machine and not of the proxies: it runs again, up to attempts times in all. What is disturbed
// then, too, has no figures.
const (
	mostDisturbed = 500 * time.Millisecond
	attempts      = 3
)

// mostReplicas is how many processes of proxies run side by side at most.
const mostReplicas = 80

// bench is what a run of the command needs.
type bench struct {
	programs *programs
	proxies  []proxy // that can be had
	rounds   int
	seed     uint64
	beside   int // proxies side by side
	length   scenario.Length
	progress io.Writer
}

// groups draws which proxies run side by side, and in which order, anew for each scenario and
// round.
func (b *bench) groups(random *rand.Rand, replicas int) [][]proxy {
	order := slices.Clone(b.proxies)
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return slices.Collect(slices.Chunk(order, max(1, min(b.beside, mostReplicas/replicas))))
}

// runAll runs the scenarios in turn, in each round. With an error it returns what there is until
// then.
func (b *bench) runAll(ctx context.Context, selected map[string]bool) ([]outcome, error) {
	var outcomes []outcome
	random := rand.New(rand.NewPCG(b.seed, 0))
	for round := range b.rounds {
		for _, p := range plays(b.seed+uint64(round), b.length) {
			if !selected[p.name] {
				continue
			}
			p.draw()
			for _, group := range b.groups(random, p.Replicas) {
				of, err := b.runUndisturbed(ctx, p, group)
				if ctx.Err() != nil {
					err = errors.New("interrupted")
				}
				if err != nil {
					return outcomes, fmt.Errorf("round %d of %d, %s: %w", round+1, b.rounds, p.name, err)
				}
				for _, o := range of {
					o.Round, o.Scenario = round, p.name
					outcomes = append(outcomes, o)
					fmt.Fprintf(b.progress, "%d %-26s %-18s %s\n", round+1, p.name, o.Proxy, o)
				}
			}
		}
	}
	return outcomes, nil
}

// runUndisturbed runs a group, and again if the machine had no time for it.
func (b *bench) runUndisturbed(ctx context.Context, p *play, group []proxy) (outcomes []outcome, err error) {
	for range attempts {
		if outcomes, err = b.runGroup(ctx, p, group); err != nil || ctx.Err() != nil || !slices.ContainsFunc(outcomes, outcome.disturbed) {
			break
		}
		fmt.Fprintf(b.progress, "%s: the machine had no time for requests at their times\n", p.name)
	}
	return outcomes, err
}

func (o outcome) disturbed() bool { return o.Late > millis(mostDisturbed) }

// counts: it has figures that can be compared.
func (o outcome) counts() bool { return o.Requests > 0 && !o.disturbed() }

func (o outcome) String() string {
	if o.Requests == 0 {
		return "nothing was measured: " + o.Error
	}
	return fmt.Sprintf("p50 %s p99 %s p99.9 %s (best possible %s %s %s) of %d: failed %d %v wrong %d; most %d; needless %.1f %%; less %s again %s; late %.1f ms; busy %.0f %% %s",
		text(o.Latency.P50), text(o.Latency.P99), text(o.Latency.P999), text(o.Best.P50), text(o.Best.P99), text(o.Best.P999),
		o.Requests, o.Failed, o.Reasons, o.Wrong, o.Most, 100*o.Needless, seconds(o.Less), seconds(o.Again), o.Late, 100*o.Busy, o.Error)
}

// stand is one proxy in a run: its own peers, its replicas, and the load on them.
type stand struct {
	proxy    proxy
	origins  *origins
	replicas []*replica
	started  bool
	samples  []sample
	err      error
}

// runGroup runs a play for several proxies side by side, all of which see the same at the same
// time. A proxy that does not start, or not end, is not in the way of the others: its outcome says
// why.
func (b *bench) runGroup(ctx context.Context, p *play, group []proxy) (outcomes []outcome, _ error) {
	stands := make([]*stand, len(group))
	for i := range group {
		stands[i] = &stand{proxy: group[i]}
	}
	defer func() {
		for _, s := range stands {
			if err := s.close(); err != nil {
				fmt.Fprintf(b.progress, "%s: stop: %v\n", s.proxy.name, err)
			}
		}
	}()
	var starting sync.WaitGroup
	for _, s := range stands {
		of, err := b.programs.of(ctx, s.proxy, b.progress)
		if err != nil {
			return nil, err
		}
		starting.Go(func() {
			s.err = s.start(ctx, p, of)
			s.started = s.err == nil
		})
	}
	starting.Wait()
	for _, s := range stands {
		if !s.started {
			fmt.Fprintf(b.progress, "%s: start: %v\n", s.proxy.name, s.err)
		}
	}
	begin := time.Now().Add(startAfter)
	before := readProcessor()
	var running sync.WaitGroup
	for _, s := range stands {
		if s.started {
			running.Go(func() { s.run(ctx, p, begin) })
		}
	}
	running.Wait()
	busy := readProcessor().since(before)
	for _, s := range stands {
		o := s.outcome(p)
		o.Busy = busy
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

func (s *stand) start(ctx context.Context, p *play, of program) (err error) {
	if s.origins, err = startOrigins(p); err != nil {
		return err
	}
	for range p.Replicas {
		r, err := startReplica(ctx, of, s.proxy.policy, s.origins.peers())
		if err != nil {
			return err
		}
		s.replicas = append(s.replicas, r)
	}
	return nil
}

// run sends the load, and gives the proxy another configuration in the middle of it, if the play
// asks for it.
func (s *stand) run(ctx context.Context, p *play, begin time.Time) {
	s.origins.start(begin)
	var addresses []string
	for _, r := range s.replicas {
		addresses = append(addresses, r.settings.Listen)
	}
	var reloading sync.WaitGroup
	if p.Reload > 0 {
		reloading.Go(func() {
			wait(ctx, time.Until(begin.Add(p.Reload)))
			for _, r := range s.replicas {
				s.err = errors.Join(s.err, r.reload(ctx))
			}
		})
	}
	s.samples = newLoad(p, begin, addresses).run(ctx)
	reloading.Wait()
}

func (s *stand) close() error {
	var errs []error
	for _, r := range s.replicas {
		errs = append(errs, r.close())
	}
	if s.origins != nil {
		errs = append(errs, s.origins.close())
	}
	return errors.Join(errs...)
}

// outcome is computed when the run has ended.
func (s *stand) outcome(p *play) outcome {
	o := outcome{Proxy: s.proxy.name, Reasons: make(map[failure]int)}
	for _, r := range s.replicas {
		select {
		case <-r.process.Exited():
			s.err = errors.Join(s.err, fmt.Errorf("ended by itself: %v %s", r.process.Err(), r.output))
		default:
		}
	}
	if s.err != nil {
		o.Error, _, _ = strings.Cut(s.err.Error(), "\n")
	}
	if !s.started {
		return o
	}
	right := 0
	best := p.best()
	var latencies, bests []time.Duration
	for n, sample := range s.samples {
		o.Late = max(o.Late, millis(sample.late))
		if !p.measured(p.requests[n]) {
			continue
		}
		bests = append(bests, best[n])
		o.Requests++
		switch sample.failure {
		case misled:
			o.Wrong++
			continue
		case answered:
			if sample.end <= p.Duration {
				right++
			}
		default:
			o.Failed++
			o.Reasons[sample.failure]++
		}
		latencies = append(latencies, sample.latency)
	}
	o.Latency, o.Best = figuresOf(latencies), figuresOf(bests)
	o.Goodput = float64(right) / (p.Duration - p.WarmUp).Seconds()
	arrivals, needless, most := s.origins.counted()
	o.Most = most
	o.Needless = float64(needless) / float64(max(len(arrivals), 1))
	for _, a := range arrivals {
		if a.peer == len(p.Peers)-1 {
			o.Share += 1 / float64(len(arrivals))
		}
	}
	times := make([][]time.Duration, len(p.Peers))
	for _, a := range arrivals {
		times[a.peer] = append(times[a.peer], a.at)
	}
	o.Shares[0], o.Shares[1] = p.Shares(times)
	less, again := reactions(p, arrivals)
	o.Less, o.Again = median(less).Seconds(), median(again).Seconds()
	return o
}

// processor is what the kernel has counted of all processors, in ticks.
type processor struct{ busy, all float64 }

// readProcessor reads the first line of /proc/stat: user, nice, system, idle, iowait, and the rest.
func readProcessor() (p processor) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return processor{}
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, field := range strings.Fields(line) {
		var ticks float64
		if _, err := fmt.Sscan(field, &ticks); err != nil || i > 8 { // "cpu"; guests are in user already
			continue
		}
		p.all += ticks
		if i != 4 && i != 5 {
			p.busy += ticks
		}
	}
	return p
}

// since is the busy share of the time between.
func (p processor) since(before processor) float64 {
	if p.all <= before.all {
		return 0
	}
	return (p.busy - before.busy) / (p.all - before.all)
}
