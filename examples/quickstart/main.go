// Command quickstart shows sluice with a real Consul on this machine. It needs only Go:
//
//	go run ./examples/quickstart          # look around; Ctrl-C ends and removes everything
//	go run ./examples/quickstart -once    # walk through it, check every promise, end
//
// It starts Consul (the one on PATH, or one that it builds once), three small
// apps that register themselves there (examples/goapp), and sluice in front of
// them, each a process of its own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	once := flag.Bool("once", false, "go through the three things to try without help, check them, and end")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "quickstart: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	show := look
	if *once {
		show = tour
	}
	if err := run(ctx, newPrinter(os.Stdout), show); err != nil {
		fmt.Fprintln(os.Stderr, "\nquickstart:", err)
		os.Exit(1)
	}
}

// run starts everything, shows it, and removes it, also after an error. The expected end is
// an interrupt by the user.
func run(ctx context.Context, out *printer, show func(context.Context, *printer, *stage) error) error {
	s, err := newStage(ctx, out)
	if err == nil {
		out.line("")
		err = show(ctx, out, s)
	}
	if ctx.Err() != nil {
		out.line("Stopping and removing everything.")
		if errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	return errors.Join(err, s.clear())
}
