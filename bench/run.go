//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"sluice/bench/machine"
)

// options are the command's flags.
type options struct {
	workloads  []workload
	runCount   int           // of everything
	roundCount int           // for each proxy, in each run
	time       time.Duration // of one round's load
	proxyCore  int
	loadCPUs   string // list, as taskset takes it
	nice       int    // of proxies, load and origin
	profileDir string // "" for no profiles
	files      uint64 // that each process may open
}

// bench holds what all workloads share: the origin, the load generator and the
// proxies that take part.
type bench struct {
	options
	contenders []contender
	base       settings
	readers    []string // the peers for requests with a body
	grpc       []string // the peers for gRPC, as grpc-go answers
	apart      []string // the peers for gRPC that send all parts of a response apart
	wide       []string // the peers of workloads with many pools
	load       *load
	progress   io.Writer
}

// round is what one proxy did in one round.
type round struct {
	Load      loadResult    `json:"load"`
	CPU       time.Duration `json:"cpu_ns"`
	UserShare float64       `json:"user_share"`
	Resident  int64         `json:"resident_bytes"`
	// Others is the share of the round in which the proxy's core was busy with
	// something else than the proxy. It should be near 0.
	Others float64 `json:"others_share"`
}

// cpuPerRequest is the main figure.
func (r round) cpuPerRequest() time.Duration {
	return time.Duration(int64(r.CPU) / r.Load.Requests)
}

// series is what one proxy did in all rounds of a workload.
type series struct {
	Proxy  string  `json:"proxy"`
	Rounds []round `json:"rounds,omitempty"`
	Idle   *idle   `json:"idle,omitempty"`
}

// result is the outcome of one workload.
type result struct {
	Workload string   `json:"workload"`
	About    string   `json:"about"`
	Series   []series `json:"series"`

	work      workload
	baselines []string // series that ratios are taken to
}

// failures describes the rounds with failed requests, if any.
func (r result) failures() []string {
	var lines []string
	for _, s := range r.Series {
		for i, round := range s.Rounds {
			if l := round.Load; l.errors() > 0 {
				line := fmt.Sprintf("%s, %s, round %d: %d connections failed, %d answers not 2xx, %d timeouts of %d requests",
					r.Workload, s.Proxy, i+1, l.Failed, l.Status, l.Timeouts, l.Requests)
				if l.Reason != "" {
					line += " (" + l.Reason + ")"
				}
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// runWorkload starts every contender, measures them in turn and stops them.
func (b *bench) runWorkload(ctx context.Context, w workload) (result, error) {
	switch w.kind {
	case kindIdle:
		return b.runIdle(ctx, w)
	case kindPools:
		return b.runPools(ctx, w)
	case kindWide:
		return b.runWide(ctx, w)
	default:
		return b.runLoad(ctx, w)
	}
}

// runLoad measures all contenders under the load of w.
func (b *bench) runLoad(ctx context.Context, w workload) (result, error) {
	r := result{Workload: w.name, About: w.about, work: w, baselines: baselines}
	var all []*running
	defer func() {
		for _, p := range all {
			p.process.stop()
		}
	}()
	for _, c := range b.contenders {
		if w.skips(c) {
			continue
		}
		p, err := b.start(ctx, c, w)
		if err != nil {
			return r, err
		}
		all = append(all, p)
		r.Series = append(r.Series, series{Proxy: c.name})
	}
	if w.half && len(all) > 0 {
		var err error
		if w.pause, err = b.pauseForHalf(ctx, w, all[0]); err != nil {
			return r, err
		}
		fmt.Fprintf(b.progress, "%-10s each connection pauses %v on average\n", w.name, w.pause)
	}
	return r, b.rounds(ctx, w, &r, all, func(p *running) (round, error) { return b.measure(ctx, w, p) })
}

// pauseForHalf returns the pause with which the connections of w send half of the requests that p
// can answer, in whole milliseconds.
func (b *bench) pauseForHalf(ctx context.Context, w workload, p *running) (time.Duration, error) {
	if err := b.load.warmUp(ctx, w, p.settings.Listen); err != nil {
		return 0, err
	}
	most, err := b.load.run(ctx, w, p.settings.Listen, b.time)
	if err != nil {
		return 0, err
	}
	pause := time.Duration(float64(w.conns) / (most.perSecond() / 2) * float64(time.Second))
	return max(pause.Round(time.Millisecond), time.Millisecond), nil
}

// rounds measures all in turn, a different one first each time, and adds what
// it finds to the series of r, which are in the order of all.
func (b *bench) rounds(ctx context.Context, w workload, r *result, all []*running, measure func(*running) (round, error)) error {
	for _, p := range all {
		if err := b.load.warmUp(ctx, w, p.settings.Listen); err != nil {
			return fmt.Errorf("warm up %s: %w\n%s", p.name, err, p.process.output)
		}
	}
	for i := range b.roundCount {
		for j := range all {
			n := (i + j) % len(all)
			round, err := measure(all[n])
			if err != nil {
				return err
			}
			r.Series[n].Rounds = append(r.Series[n].Rounds, round)
			fmt.Fprintf(b.progress, "%-10s round %d  %-14s %7.2f µs CPU  %8.0f req/s\n", w.name, i+1,
				all[n].name, micros(round.cpuPerRequest()), round.Load.perSecond())
		}
	}
	if b.profileDir == "" {
		return nil
	}
	for _, p := range all {
		if err := b.profile(ctx, w, p); err != nil {
			return err
		}
	}
	return nil
}

// running is a contender that has been started.
type running struct {
	contender
	process  *process
	settings settings

	meanwhile func(context.Context) // runs during each round until ctx ends; nil: nothing
}

// begin starts meanwhile; the caller calls end after the round.
func (p *running) begin(ctx context.Context) (end func()) {
	if p.meanwhile == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { p.meanwhile(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

// start starts c for w: on the proxy's core, or for a wide workload on all.
func (b *bench) start(ctx context.Context, c contender, w workload) (*running, error) {
	addresses, err := machine.FreeAddresses(2)
	if err != nil {
		return nil, err
	}
	s := b.base
	s.Name, s.Listen, s.Admin, s.Threads = c.name, addresses[0], addresses[1], 1
	s.TLS, s.TCP, s.HTTP2, s.HTTP3, s.GRPC = w.tls, w.tcp, w.load == loadH2, w.http3(), w.grpc != grpcNone
	switch {
	case w.grpc == grpcTogether:
		s.Peers = b.grpc
	case w.grpc == grpcApart:
		s.Peers = b.apart
	case w.body > 0:
		s.Peers = b.readers
	}
	cpus := fmt.Sprint(b.proxyCore)
	if w.kind == kindWide {
		s.Threads = 2
		cpus += "," + firstCPU(b.loadCPUs)
	}
	p, err := c.start(ctx, cpus, s, w.probe())
	if err != nil {
		return nil, err
	}
	return &running{contender: c, process: p, settings: s}, nil
}

// measure runs one round.
func (b *bench) measure(ctx context.Context, w workload, p *running) (round, error) {
	defer p.begin(ctx)()
	busyBefore, err := readCoreBusy(b.proxyCore)
	if err != nil {
		return round{}, err
	}
	before, err := readCPU(p.process.PID())
	if err != nil {
		return round{}, fmt.Errorf("%s: %w\n%s", p.name, err, p.process.output)
	}
	load, err := b.load.run(ctx, w, p.settings.Listen, w.roundTime(b.time))
	if err != nil {
		return round{}, fmt.Errorf("%s: %w\n%s", p.name, err, p.process.output)
	}
	after, err := readCPU(p.process.PID())
	if err != nil {
		return round{}, fmt.Errorf("%s: %w\n%s", p.name, err, p.process.output)
	}
	busyAfter, err := readCoreBusy(b.proxyCore)
	if err != nil {
		return round{}, err
	}
	resident, err := readResident(p.process.PID())
	if err != nil {
		return round{}, err
	}
	used := after.sub(before)
	r := round{Load: load, CPU: used.total, UserShare: used.userShare(), Resident: resident}
	if w.kind != kindWide { // there the load generator is on the core by design
		r.Others = max(0, (busyAfter-busyBefore-used.total).Seconds()/load.Took.Seconds())
	}
	return r, nil
}

// newBench starts the origins. The caller calls stop when all is done.
func newBench(ctx context.Context, o options, list, dir string) (b *bench, stop func(), err error) {
	all, err := contenders(list, builds{
		sluice: func() (string, error) {
			fmt.Fprintln(os.Stderr, "building sluice")
			return machine.BuildSluice(ctx, dir)
		},
		caddy: func() (path, version string, err error) { return buildCaddy(ctx, os.Stderr) },
	})
	if err != nil {
		return nil, nil, err
	}
	addresses, err := machine.FreeAddresses(17)
	if err != nil {
		return nil, nil, err
	}
	base := settings{Dir: dir, Root: os.Geteuid() == 0, Peers: addresses[:4], Threads: 1}
	wide, err := wideAddresses(addresses[16])
	if err != nil {
		return nil, nil, err
	}
	if err := writeCertificate(base); err != nil {
		return nil, nil, err
	}
	w, err := newLoad(dir, o.loadCPUs)
	if err != nil {
		return nil, nil, err
	}
	if err := pinSelf(o.loadCPUs, o.nice); err != nil {
		return nil, nil, err
	}
	sink, err := newLogSink()
	if err != nil {
		return nil, nil, err
	}
	base.LogSink = sink.address()
	var origins []*process
	stop = func() {
		for _, p := range origins {
			p.stop()
		}
		sink.close()
	}
	origin, err := startOrigin(ctx, o.loadCPUs, base, wide)
	if err != nil {
		stop()
		return nil, nil, err
	}
	origins = append(origins, origin)
	b = &bench{
		options: o, contenders: all, base: base, wide: wide, load: w, progress: os.Stderr,
		readers: addresses[4:8], grpc: addresses[8:12], apart: addresses[12:16],
	}
	for _, child := range []struct {
		name, argument string
		peers          []string
	}{{"reader", originArgument, b.readers}, {"grpc", grpcArgument, b.grpc}, {"apart", apartArgument, b.apart}} {
		s := base
		s.Peers = child.peers
		p, err := startChild(ctx, child.name, child.argument, o.loadCPUs, s)
		if err != nil {
			stop()
			return nil, nil, err
		}
		origins = append(origins, p)
	}
	return b, stop, nil
}

// checkQuiet warns if the machine has other work: then only the ratios are valid.
func checkQuiet(ctx context.Context, core int, out io.Writer) error {
	const sample = 500 * time.Millisecond
	before, err := readCoreBusy(core)
	if err != nil {
		return err
	}
	timer := time.NewTimer(sample)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	after, err := readCoreBusy(core)
	if err != nil {
		return err
	}
	if busy := (after - before).Seconds() / sample.Seconds(); busy > 0.1 {
		fmt.Fprintf(out, "warning: CPU %d is %.0f %% busy with other work; expect noise\n", core, 100*busy)
	}
	return nil
}
