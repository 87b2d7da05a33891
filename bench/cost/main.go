//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/bench/machine"
	"sluice/bench/markdown"
)

// section marks the table of features in a document.
var section = markdown.WrittenBy("bench/cost")

func main() {
	machine.RunCommand("bench/cost", run)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench/cost", flag.ContinueOnError)
	names := flags.String("run", "all", "comma-separated `works`")
	list := flags.Bool("list", false, "list the works and exit")
	program := flags.String("sluice", "", "`path` of another sluice than the one of this module")
	priced := flags.Bool("features", false, "count what each feature costs, instead of comparing works with bounds.txt")
	documentPath := flags.String("document", "", "with -features, also replace the table of an earlier count in `file`")
	b := &bench{}
	flags.IntVar(&b.requests, "requests", mostRequests, "`requests` of a work, at most")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see -help", flags.Arg(0))
	}
	if b.requests < 1 {
		return errors.New("-requests must be at least 1")
	}
	if *list {
		for _, w := range works {
			fmt.Printf("%-10s %s\n", w.name, w.about)
		}
		return nil
	}
	selected, err := selectWorks(*names)
	if err != nil {
		return err
	}
	most, err := parseBounds(boundsText)
	if err != nil {
		return err
	}
	if *documentPath != "" {
		if err := section.Find(*documentPath); err != nil {
			return err
		}
	}
	if err := errors.Join(machine.Require(map[string]string{"strace": "strace"}), raiseFileLimit()); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "sluice-cost-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.program = *program
	if b.program == "" {
		if b.program, err = machine.BuildSluice(ctx, b.dir); err != nil {
			return err
		}
	}
	if *priced {
		table, err := b.price(ctx, "go run ./bench/cost "+strings.Join(args, " "))
		if err != nil {
			return err
		}
		fmt.Print(table)
		if *documentPath != "" {
			return section.Replace(*documentPath, table)
		}
		return nil
	}
	return b.gate(ctx, selected, most)
}

// gate prints the counts of works, and fails if one exceeds its bound.
func (b *bench) gate(ctx context.Context, selected []work, most bounds) error {
	var failures []string
	for _, w := range selected {
		c, err := b.least(ctx, w, most)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		var texts []string
		for _, name := range slices.Sorted(maps.Keys(c)) {
			if _, named := most.of(w.name, name); named || c[name] >= 0.005 {
				texts = append(texts, fmt.Sprintf("%s %.2f", name, c[name]))
			}
		}
		fmt.Printf("%-9s %s\n", w.name, strings.Join(texts, ", "))
		failures = append(failures, most.exceeded(w.name, c)...)
	}
	if b.skipped != nil {
		fmt.Println("instructions are not counted:", b.skipped)
	}
	if len(failures) > 0 {
		return fmt.Errorf("a request costs more than bounds.txt says:\n%s", strings.Join(failures, "\n"))
	}
	return nil
}

// least measures w again while a count exceeds its bound, up to three times in all, and returns the
// least of each count: what a request needs is in each of them, what a busy machine adds is not.
func (b *bench) least(ctx context.Context, w work, most bounds) (counts, error) {
	c, err := b.measure(ctx, w, feature{})
	for tries := 1; err == nil && tries < 3 && len(most.exceeded(w.name, c)) > 0; tries++ {
		var next counts
		next, err = b.measure(ctx, w, feature{})
		c.lower(next)
	}
	return c, err
}

// raiseFileLimit lets this program have a connection for each idle client, and two descriptors in
// sluice.
func raiseFileLimit() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}
