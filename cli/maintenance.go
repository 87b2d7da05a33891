package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/discovery"
)

// maintenance is an order about a service.
type maintenance struct {
	api
	state string // on or off
	terms
	except string
}

func newMaintenance() *cobra.Command {
	command := &cobra.Command{
		Use:   "maintenance",
		Short: "Answer the requests to a service while it is worked on",
		Long: "Answer the requests to a service of a running sluice with 503 while it is worked\n" +
			"on, and end that. Requests in flight go on. \"sluice orders\" shows the maintenances.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	on, off := maintenance{state: "on"}, maintenance{state: "off"}
	begin := on.command(&cobra.Command{
		Use:   "on SERVICE",
		Short: "Begin the maintenance of a service",
		Long: "Begin the maintenance of a service: requests get 503 with the reason maintenance,\n" +
			"and with the error page of their route. It lasts until \"sluice maintenance off\" or\n" +
			"for the time of --for, as a drain does: see \"sluice drain --help\".",
	})
	on.terms.addFlags(begin, "`reason` to show to clients and operators")
	begin.Flags().StringVar(&on.except, "except", "", "addresses or networks of `clients` whose requests go on, with commas between them")
	command.AddCommand(begin, off.command(&cobra.Command{
		Use:   "off SERVICE",
		Short: "End the maintenance of a service",
		Long:  "End the maintenance of a service: requests go to its peers again.",
	}))
	return command
}

// command completes c, which executes o.
func (o *maintenance) command(c *cobra.Command) *cobra.Command {
	c.Args = oneArgument("name one service")
	c.ValidArgsFunction = completeServices(&o.api, 1)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if o.except != "" {
			query.Set("except", o.except)
		}
		o.terms.addTo(cmd, query)
		ctx, stop := untilSignal(cmd)
		defer stop()
		return o.carryOut(ctx, cmd.OutOrStdout(), args[0], query)
	}
	o.api.addFlags(c)
	return c
}

func (o *maintenance) carryOut(ctx context.Context, out io.Writer, service string, query url.Values) error {
	path := "/api/services/" + discovery.PathSegment(service) + "/maintenance/" + o.state
	var done admin.OperatedService
	if err := o.askJSON(ctx, http.MethodPost, path, query, &done); err != nil {
		return err
	}
	state := "is in use"
	if m := done.Maintenance; m != nil {
		state = "is in maintenance"
		if !m.Until.IsZero() {
			state += " until " + m.Until.Format(time.RFC3339)
		}
		if m.Why != "" {
			state += ": " + printableWhy(m.Why)
		}
	}
	_, err := fmt.Fprintf(out, "%s %s\n", printable(done.Service), state)
	return errors.Join(err, writePending(out, done.Acceptance))
}
