//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/bench/machine"
	"sluice/bench/markdown"
)

// section marks the table in a document.
var section = markdown.WrittenBy("bench/hostile")

func main() {
	machine.RunCommand("bench/hostile", run)
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench/hostile", flag.ContinueOnError)
	names := flags.String("run", "all", "comma-separated `attacks`")
	documentPath := flags.String("document", "", "also replace the table of an earlier run in `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	selected, err := selectAttacks(*names)
	if err != nil {
		return err
	}
	if *documentPath != "" {
		if err := section.Find(*documentPath); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "sluice-hostile-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := machine.BuildSluice(ctx, dir)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("<!-- illustration: takes minutes -->\n```sh\n%s\n```\n\nOn %s; %s. CPU in µs is for each unit, memory in KiB for each that is held; failed is of the visitor's requests.\n\n",
		strings.TrimSpace("go run ./bench/hostile "+strings.Join(args, " ")), time.Now().UTC().Format(time.DateOnly), machine.Commit(ctx))
	text += "| attack | HTTP/2: units | CPU | memory | failed | HTTP/3: units | CPU | memory | failed |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
	for _, a := range selected {
		text += "| " + a.about
		for _, byUDP := range []bool{false, true} {
			do := a.byTCP
			if byUDP {
				do = a.byUDP
			}
			if do == nil {
				text += " | | | |"
				continue
			}
			m, err := measure(ctx, program, dir, a, do, byUDP)
			if err != nil {
				return fmt.Errorf("%s: %w", a.name, err)
			}
			text += " | " + m.String()
		}
		text += " |\n"
	}
	fmt.Print(text)
	if *documentPath != "" {
		return section.Replace(*documentPath, text)
	}
	return nil
}

func selectAttacks(names string) ([]attack, error) {
	if names == "all" {
		return attacks, nil
	}
	var selected []attack
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no attack %q", name)
		}
		selected = append(selected, attacks[i])
	}
	return selected, nil
}

// measurement is what an attack has cost.
type measurement struct {
	units    int
	held     int // of them
	cpu      time.Duration
	memory   int64 // bytes; 0: nothing is held
	failed   int
	requests int
}

func (m measurement) String() string {
	memory := ""
	if m.memory > 0 {
		memory = fmt.Sprintf("%.1f", float64(m.memory)/1024/float64(max(1, m.held)))
	}
	units := fmt.Sprint(m.units)
	if m.held > 0 && m.held != m.units {
		units += fmt.Sprintf(", %d held", m.held)
	}
	return fmt.Sprintf("%s | %.1f | %s | %d of %d", units, float64(m.cpu.Microseconds())/float64(m.units), memory, m.failed, m.requests)
}

// settle is how long a held attack lasts before memory is read.
const settle = time.Second

// measure runs an attack on a new sluice.
func measure(ctx context.Context, program, dir string, a attack, do attackFunc, byUDP bool) (m measurement, err error) {
	s, err := start(ctx, program, dir)
	if err != nil {
		return m, err
	}
	defer s.stop()
	visitor := startVisitor(ctx, s.address, byUDP)
	defer visitor.stop()
	if err := visitor.await(100); err != nil {
		return m, err
	}
	idle, err := s.idleCPU(ctx)
	if err != nil {
		return m, err
	}
	memory, cpu, begun, err := s.usage()
	if err != nil {
		return m, err
	}
	units, release, err := do(ctx, s.address, a.units)
	if err != nil {
		return m, err
	}
	defer release()
	if a.held {
		if err := sleep(ctx, settle); err != nil {
			return m, err
		}
	}
	after, used, now, err := s.usage()
	if err != nil {
		return m, err
	}
	m.units, m.cpu = units, used-cpu-time.Duration(idle*float64(now.Sub(begun)))
	if a.held {
		m.memory, m.held = max(after-memory, 1), units
	}
	if a.handshakes {
		if m.held, err = s.handshakes(ctx); err != nil {
			return m, err
		}
	}
	m.requests, m.failed = visitor.stop()
	return m, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
