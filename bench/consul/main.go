//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"sluice/bench/machine"
)

// options say what to measure.
type options struct {
	services, instances, nodes int

	mode      string
	tls       bool
	unchecked bool
	changes   int
	pause     time.Duration
	idle      time.Duration
	profile   string

	replicas, agents int
	cached, polling  bool
	loss             time.Duration
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == watchCommand {
		machine.Exit("bench/consul", watch(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == memoryCommand {
		machine.Exit("bench/consul", serveMemory(os.Args[2:]))
	}
	machine.RunCommand("bench/consul", run)
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("bench/consul", flag.ContinueOnError)
	flags.IntVar(&o.services, "services", 0, "number of services, at least 2; 0: several sizes in turn")
	flags.IntVar(&o.instances, "instances", 5, "instances of each service")
	flags.IntVar(&o.nodes, "nodes", 1, "nodes that they are spread over")
	flags.StringVar(&o.mode, "mode", "dev", "the agent: dev, server, or memory for a catalogue in memory")
	flags.BoolVar(&o.tls, "tls", false, "ask the agent over https, which means HTTP/2")
	flags.BoolVar(&o.unchecked, "unchecked", false, "instances have no checks")
	flags.IntVar(&o.changes, "changes", 30, "changes of each kind")
	flags.DurationVar(&o.pause, "pause", time.Second, "between two changes")
	flags.DurationVar(&o.idle, "idle", 20*time.Second, "how long to watch before the first change")
	flags.StringVar(&o.profile, "profile", "", "write sluice's CPU profile of the changes to `file`")
	flags.IntVar(&o.replicas, "replicas", 0, "measure this number of replicas and a cluster of three servers instead")
	flags.IntVar(&o.agents, "agents", 0, "client agents that the replicas ask in turn; 0: they ask the servers")
	flags.BoolVar(&o.cached, "cached", false, "replicas have consul.cached")
	flags.BoolVar(&o.polling, "polling", false, "agents have use_streaming_backend: false")
	flags.DurationVar(&o.loss, "loss", 0, "then kill the leader, and measure for so long")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || o.services < 0 || o.services == 1 || o.instances < 1 || o.nodes < 1 || o.changes < 1 || !slices.Contains([]string{"dev", "server", "memory"}, o.mode) {
		return errors.New("wrong arguments; see -help")
	}
	if o.replicas > 0 {
		r, err := measureFleet(ctx, o)
		if r.held != nil {
			r.print(o)
		}
		if err != nil {
			return fmt.Errorf("%d replicas: %w", o.replicas, err)
		}
		return nil
	}
	sizes := []options{o}
	if o.services == 0 {
		sizes = nil
		for _, size := range [][3]int{{10, 5, 1}, {100, 5, 1}, {300, 5, 1}, {300, 5, 10}, {1000, 10, 1}, {1000, 10, 20}} {
			next := o
			next.services, next.instances, next.nodes = size[0], size[1], size[2]
			sizes = append(sizes, next)
		}
	}
	for _, size := range sizes {
		r, err := measure(ctx, size)
		if len(r.kinds) > 0 {
			r.print(size)
		}
		if err != nil {
			return fmt.Errorf("%d services × %d: %w", size.services, size.instances, err)
		}
	}
	return nil
}

// print writes the figures of one size as a table.
func (r result) print(o options) {
	scheme := "http"
	if o.tls {
		scheme = "https"
	}
	checks := "with"
	if o.unchecked {
		checks = "without"
	}
	fmt.Printf("\n%d services × %d instances on %d nodes, %s checks, %s agent, %s\n", o.services, o.instances, o.nodes, checks, o.mode, scheme)
	fmt.Printf("first sets of all services after %v; idle: %.2f queries/s, %.2f probes/s, %.0f bytes/s; connections %d (at most %d); sluice: %d goroutines, %.1f MiB heap\n",
		r.first.Round(time.Millisecond), r.idleQueries, r.idleProbes, r.idleBytes, r.end.Connections, r.end.Peak, r.end.Goroutines, float64(r.end.HeapBytes)/(1<<20))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "change\tmedian\tp95\tqueries\tKB\tsluice CPU\tConsul CPU\t")
	for _, k := range r.kinds {
		fmt.Fprintf(w, "%s\t%v\t%v\t%.1f\t%.1f\t%v\t%v\t\n", k.name, k.median.Round(10*time.Microsecond), k.p95.Round(10*time.Microsecond),
			k.queries, k.bytes/1000, k.sluiceCPU.Round(10*time.Microsecond), k.consulCPU.Round(100*time.Microsecond))
	}
	_ = w.Flush() // standard output
	fmt.Printf("the whole program: ready %v after its start, with %v of CPU; first request at a new instance: median %v, p95 %v after its registration; %d connections to Consul, %d goroutines, %.1f MiB resident\n",
		r.served.ready.Round(time.Millisecond), r.served.readyCPU,
		r.served.median.Round(10*time.Microsecond), r.served.p95.Round(10*time.Microsecond), r.served.connections, r.served.goroutines, float64(r.served.resident)/(1<<20))
}
