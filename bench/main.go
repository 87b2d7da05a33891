//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"sluice/bench/machine"
)

// fileLimit is how many open files each process should have: one for each idle
// client, and plenty for the rest.
const fileLimit = 16_000

func main() {
	if code, isChild := serveChild(os.Args[1:]); isChild {
		os.Exit(code)
	}
	machine.RunCommand("bench", run)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	list := flags.Bool("list", false, "list the workloads and exit")
	names := flags.String("run", "all", "comma-separated `workloads`")
	proxies := flags.String("proxies", "nginx,haproxy,relay,sluice", "comma-separated `proxies`: nginx, haproxy, haproxy-nolog, haproxy-splice, relay, sluice, caddy, fasthttp, or NAME=PATH for another sluice binary")
	jsonPath := flags.String("json", "", "also write every round to `file`")
	documentPath := flags.String("document", "", "also replace the tables of an earlier measurement in `file`, if all was measured")
	var o options
	flags.IntVar(&o.runCount, "runs", 1, "how often to measure everything")
	flags.IntVar(&o.roundCount, "rounds", 5, "rounds for each proxy")
	flags.DurationVar(&o.time, "time", 3*time.Second, "load in one round, in whole seconds")
	flags.IntVar(&o.proxyCore, "core", 0, "the proxy's `CPU`")
	flags.StringVar(&o.loadCPUs, "load-cpus", "1", "`CPUs` of load generator and origin")
	flags.IntVar(&o.nice, "nice", 0, "niceness of proxies, load and origin; -10 helps on a busy machine and needs root")
	flags.StringVar(&o.profileDir, "profile", "", "write perf profiles and counts of system calls to `directory`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, w := range workloads {
			fmt.Printf("%-10s %s\n", w.name, w.about)
		}
		return nil
	}
	var err error
	if o.workloads, err = selectWorkloads(*names); err != nil {
		return err
	}
	if err := o.check(flags.Args()); err != nil {
		return err
	}
	if *documentPath != "" {
		if err := section.Find(*documentPath); err != nil {
			return err // not after half an hour
		}
	}

	restore, err := favour(o.nice)
	if err != nil {
		return err
	}
	defer restore()
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, stop, err := newBench(ctx, o, *proxies, dir)
	if err != nil {
		return err
	}
	defer stop()
	d := document{command: "go run ./bench " + strings.Join(args, " "), time: time.Now().UTC(), machine: machine.Describe(b.versions(ctx)...)}
	fmt.Printf("%s; proxy on CPU %d, load and origin on CPU %s; medians of %d rounds of %v\n\n",
		d.machine, b.proxyCore, b.loadCPUs, b.roundCount, b.time)
	runErr := b.runs(ctx, &d)
	if *jsonPath != "" {
		runErr = errors.Join(runErr, d.writeJSON(*jsonPath))
	}
	if *documentPath != "" && d.complete(b) {
		runErr = errors.Join(runErr, section.Replace(*documentPath, d.tables()))
	}
	return runErr
}

// runs measures everything in each run, also after failed requests, and adds the results to d.
func (b *bench) runs(ctx context.Context, d *document) error {
	var errs []error
	for range b.runCount {
		results, err := b.runAll(ctx)
		d.runs = append(d.runs, results)
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// versions returns what is measured, and nginx, which is the peers.
func (b *bench) versions(ctx context.Context) []string {
	all := []string{machine.Commit(ctx), machine.FirstLine(ctx, machine.Program("nginx"), "-v"), machine.FirstLine(ctx, machine.Program("haproxy"), "-v")}
	for _, c := range b.contenders {
		if c.version != "" {
			all = append(all, c.version)
		}
	}
	return all
}

// check returns an error if options are wrong, or programs are missing.
func (o *options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", rest[0])
	}
	if o.runCount < 1 || o.roundCount < 1 || o.time < time.Second || o.time > time.Minute {
		return errors.New("-runs and -rounds must be at least 1, -time between 1s and 1m")
	}
	loadCPUs, err := parseCPUs(o.loadCPUs)
	if err != nil {
		return fmt.Errorf("-load-cpus: %w", err)
	}
	for _, cpu := range append(loadCPUs, o.proxyCore) {
		if cpu < 0 || cpu >= runtime.NumCPU() {
			return fmt.Errorf("there is no CPU %d here, only 0 to %d", cpu, runtime.NumCPU()-1)
		}
	}
	tools := map[string]string{"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "taskset": "util-linux"}
	if o.profileDir != "" {
		tools["perf"], tools["strace"] = "linux-perf", "strace"
	}
	if err := machine.Require(tools); err != nil {
		return err
	}
	o.files, err = raiseFileLimit(fileLimit)
	return err
}

// runAll runs the workloads in turn and prints each table as it is done. After
// an interrupt the results so far are returned with the error.
func (b *bench) runAll(ctx context.Context) ([]result, error) {
	if err := checkQuiet(ctx, b.proxyCore, b.progress); err != nil {
		return nil, err
	}
	var results []result
	var failures []string
	for _, w := range b.workloads {
		r, err := b.runWorkload(ctx, w)
		if err != nil {
			if ctx.Err() != nil {
				return results, errors.New("interrupted")
			}
			return results, fmt.Errorf("workload %s: %w", w.name, err)
		}
		if err := r.write(os.Stdout); err != nil {
			return results, err
		}
		failures = append(failures, r.failures()...)
		results = append(results, r)
	}
	if len(failures) > 0 {
		return results, fmt.Errorf("%d rounds had failed requests:\n%s", len(failures), strings.Join(failures, "\n"))
	}
	return results, nil
}

// parseCPUs parses a list in the format of taskset: "1", "1,3", "2-5".
func parseCPUs(list string) ([]int, error) {
	var cpus []int
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", list, err)
		}
		to := from
		if isRange {
			if to, err = strconv.Atoi(last); err != nil {
				return nil, fmt.Errorf("CPU list %q: %w", list, err)
			}
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) == 0 {
		return nil, fmt.Errorf("CPU list %q is empty", list)
	}
	return cpus, nil
}

// firstCPU returns the first CPU of a list that parseCPUs accepts.
func firstCPU(list string) string {
	cpus, err := parseCPUs(list)
	if err != nil {
		return list
	}
	return strconv.Itoa(cpus[0])
}
