package cli

import (
	"context"
	"errors"
	"net/url"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"sluice/cli/top"
	"sluice/observe/events"
)

// topEvents is the number of latest events that top asks for.
const topEvents = "20"

func newTop() *cobra.Command {
	var a api
	command := &cobra.Command{
		Use:   "top",
		Short: "Show services and peers live in the terminal",
		Long: "Show the services of a running sluice live in the terminal: peers that get requests,\n" +
			"requests and errors a second, latency, and what is wrong, with the latest events.\n" +
			"Enter shows the peers of a service. It changes nothing.\n\n" +
			"For a log or a script use \"sluice peers --watch\" or --json, and \"sluice events\".",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, ok := cmd.OutOrStdout().(*os.File)
			if !ok || !isatty.IsTerminal(out.Fd()) {
				return errors.New("top needs a terminal: \"sluice peers\" writes to files and pipes")
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			if _, err := a.read(ctx, ""); err != nil {
				return err // before the screen is taken
			}
			return top.Run(ctx, a.address, a.read, cmd.InOrStdin(), out)
		},
	}
	a.addFlags(command)
	return command
}

// read reads what top shows.
func (a *api) read(ctx context.Context, service string) (r top.Reading, err error) {
	r.At = time.Now()
	of := url.Values{}
	if service != "" {
		of.Set("service", service)
	}
	if r.Services, err = servicesOf(a).get(ctx); err != nil {
		return r, err
	}
	if service != "" {
		if r.Peers, err = peersOf(a, service).get(ctx); err != nil {
			return r, err
		}
	}
	of.Set("limit", topEvents)
	of.Set("format", "json")
	r.Events, err = query[[]events.Event]{api: a, path: "/api/events", query: of}.get(ctx)
	return r, err
}
