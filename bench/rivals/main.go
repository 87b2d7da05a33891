//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/test/consultest"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == appCommand {
		machine.Exit("bench/rivals", runApp(os.Args[2:]))
	}
	machine.RunCommand("bench/rivals", run)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench/rivals", flag.ContinueOnError)
	list := flags.Bool("list", false, "list the scenarios and exit")
	names := flags.String("run", "all", "comma-separated `scenarios`")
	who := flags.String("rivals", "all", "comma-separated `rivals`: "+strings.Join(rivalNames(), ", "))
	jsonPath := flags.String("json", "", "also write all figures to `file`")
	documentPath := flags.String("document", "", "also replace the tables of an earlier measurement in `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-10s %s\n", s.name, s.title)
		}
		return nil
	}
	selected, err := selectScenarios(*names)
	if err != nil {
		return err
	}
	contestants, err := selectRivals(*who)
	if err != nil {
		return err
	}
	if *documentPath != "" {
		if err := section.Find(*documentPath); err != nil {
			return err // before a measurement of ten minutes
		}
	}
	r, err := measure(ctx, contestants, selected)
	if err != nil {
		return err
	}
	r.Command = strings.TrimSpace("go run ./bench/rivals " + strings.Join(args, " "))
	fmt.Print(r.markdown())
	if *jsonPath != "" {
		if err := r.writeJSON(*jsonPath); err != nil {
			return err
		}
	}
	if *documentPath != "" {
		return section.Replace(*documentPath, r.markdown())
	}
	return nil
}

// measure runs every scenario for every available rival.
func measure(ctx context.Context, contestants []rival, selected []scenario) (r report, err error) {
	dir, err := os.MkdirTemp("", "sluice-rivals-")
	if err != nil {
		return report{}, err
	}
	defer os.RemoveAll(dir)
	var entries []entry
	var versions []string
	for _, c := range contestants {
		e, err := c.prepare(ctx, tools{dir: dir, progress: os.Stderr})
		if ctx.Err() != nil {
			return report{}, errors.New("interrupted")
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", c.name, err)
			r.LeftOut = append(r.LeftOut, leftOut{c.name, err.Error()})
			continue
		}
		entries = append(entries, e)
		versions = append(versions, e.version)
	}
	consul, err := consultest.Binary(ctx, os.Stderr)
	if err != nil {
		return report{}, err
	}
	r.Machine = machine.Describe(append(versions, machine.FirstLine(ctx, consul, "version"))...)
	r.Time = time.Now().UTC()
	c, err := startCluster(ctx, os.Stderr)
	if err != nil {
		return report{}, fmt.Errorf("start Consul: %w", err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for _, s := range selected {
		for _, e := range entries {
			begin := time.Now()
			o, err := s.run(ctx, c, e)
			if ctx.Err() != nil {
				return report{}, errors.New("interrupted")
			}
			if err != nil {
				return report{}, fmt.Errorf("%s, %s: %w", s.name, e.name, err)
			}
			r.Outcomes = append(r.Outcomes, o)
			fmt.Fprintf(os.Stderr, "%-10s %-14s %5d requests, %4d failed %s%s (%v)\n", s.name, e.name,
				o.Requests, o.failed(), o.reasons(), o.Error, time.Since(begin).Round(time.Second))
		}
	}
	return r, nil
}
