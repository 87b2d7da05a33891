//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/bench/machine"
	"sluice/bench/quality/scenario"
)

func main() {
	machine.RunCommand("bench/quality", run)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench/quality", flag.ContinueOnError)
	list := flags.Bool("list", false, "list the scenarios and exit")
	names := flags.String("run", "all", "comma-separated `scenarios`, also patterns: 'equal*'")
	who := flags.String("proxies", "all", "comma-separated `proxies`, also patterns: "+strings.Join(proxyNames(), ", ")+", or NAME=PATH for another sluice binary")
	b := &bench{progress: os.Stderr, length: scenario.Live}
	short := flags.Bool("short", false, "one short round, nearly constant service times, all proxies side by side: to see that all works, not for figures")
	flags.IntVar(&b.rounds, "rounds", 2, "rounds, each with a schedule of its own")
	flags.IntVar(&b.beside, "beside", 6, "how many proxies run side by side")
	flags.Uint64Var(&b.seed, "seed", 1, "`seed` of all schedules")
	jsonPath := flags.String("json", "", "also write all outcomes to `file`")
	documentPath := flags.String("document", "", "also replace the tables of an earlier measurement in `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	if *list {
		for _, p := range plays(b.seed, b.length) {
			fmt.Printf("%-28s %s\n", p.name, p.about)
		}
		return nil
	}
	if b.rounds < 1 || b.beside < 1 {
		return errors.New("-rounds and -beside must be at least 1")
	}
	if *short {
		b.rounds, b.length, b.beside = 1, scenario.Short, len(proxies)
		if *names == "all" {
			*names = "*-" + scenario.Constant.String()
		}
	}
	selected, err := selectPlays(*names)
	if err != nil {
		return err
	}
	wanted, err := selectProxies(*who)
	if err != nil {
		return err
	}
	if *documentPath != "" {
		if err := section.Find(*documentPath); err != nil {
			return err // not after an hour
		}
	}
	debug.SetGCPercent(400) // the collector takes time from the proxies
	if err := raiseFileLimit(); err != nil {
		return err
	}
	r, err := b.measure(ctx, selected, wanted)
	if r == nil || len(r.Outcomes) == 0 {
		return err
	}
	r.Command = strings.TrimSpace("go run ./bench/quality " + strings.Join(args, " "))
	fmt.Print(r.details(), r.summary())
	if *jsonPath != "" {
		err = errors.Join(err, r.writeJSON(*jsonPath))
	}
	if *documentPath != "" {
		err = errors.Join(err, r.writeDocument(*documentPath))
	}
	return err
}

// measure runs the scenarios for all proxies that can be had. If it ends early, the report has what
// was measured.
func (b *bench) measure(ctx context.Context, selected map[string]bool, wanted []proxy) (*report, error) {
	dir, err := os.MkdirTemp("", "sluice-quality-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b.programs = newPrograms(dir)
	r := &report{Time: time.Now().UTC(), Rounds: b.rounds, Seed: b.seed, Beside: b.beside}
	for _, p := range wanted {
		if _, err := b.programs.of(ctx, p, b.progress); ctx.Err() != nil {
			return nil, errors.New("interrupted")
		} else if err != nil {
			fmt.Fprintf(b.progress, "%s is left out: %v\n", p.name, err)
			r.LeftOut = append(r.LeftOut, leftOut{p.name, err.Error()})
			continue
		}
		b.proxies = append(b.proxies, p)
		r.Proxies = append(r.Proxies, p.name)
	}
	r.Machine = machine.Describe(b.programs.versions()...)
	if r.Outcomes, err = b.runAll(ctx, selected); err != nil {
		r.Ended = err.Error()
	}
	return r, err
}

// raiseFileLimit allows as many open files as the system does: each request in flight has several.
func raiseFileLimit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

// selectPlays reads a comma-separated list of names and patterns.
func selectPlays(list string) (map[string]bool, error) {
	selected := make(map[string]bool)
	for item := range strings.SplitSeq(strings.Replace(list, "all", "*", 1), ",") {
		before := len(selected)
		for _, p := range plays(0, scenario.Short) {
			if matched, err := filepath.Match(strings.TrimSpace(item), p.name); err == nil && matched {
				selected[p.name] = true
			}
		}
		if len(selected) == before {
			return nil, fmt.Errorf("unknown scenario %q; -list shows what there is", item)
		}
	}
	return selected, nil
}
