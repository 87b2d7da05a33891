// Command quickstart shows sluice with Consul on this machine. It needs only Go:
//
//	go run ./examples/quickstart          # look around; Ctrl-C ends and removes everything
//	go run ./examples/quickstart -once    # walk through it, check every promise, end
//	go run ./examples/quickstart -real    # build Consul if there is none: some minutes, once
//
// It starts Consul, three small apps that register themselves there (examples/goapp), and
// sluice in front of them, each a process of its own. Where no consul is on PATH, nor was built
// before, a stand-in for it starts (discoverytest.Agent), which answers the same requests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"sluice/test/discoverytest"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if len(os.Args) > 1 && os.Args[1] == "agent" { // this program is its own stand-in for Consul
		exit(discoverytest.RunAgent(ctx, os.Args[2:]))
	}
	once := flag.Bool("once", false, "go through the three things to try without help, check them, and end")
	var o options
	flag.BoolVar(&o.real, "real", false, "build Consul, if there is none")
	flag.BoolVar(&o.standIn, "stand-in", false, "use the stand-in for Consul, also if there is a Consul")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "quickstart: unexpected argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	show := look
	if *once {
		show = tour
	}
	exit(run(ctx, o, newPrinter(os.Stdout), show))
}

// exit ends the process: with status 1 and a line, if there is an error.
func exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "\nquickstart:", err)
	os.Exit(1)
}

// options say which Consul to start; none: the one that is there, else the stand-in.
type options struct{ real, standIn bool }

// run starts everything, shows it, and removes it, also after an error. The expected end is
// an interrupt by the user.
func run(ctx context.Context, o options, out *printer, show func(context.Context, *printer, *stage) error) error {
	s, err := newStage(ctx, o, out)
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
