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
)

// maintenance is an order about a service.
type maintenance struct {
	api
	on      bool
	service string
	query   url.Values
	why     string
	except  string
	lasts   time.Duration // 0: until it is ended
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
	on := maintenance{on: true}
	begin := on.command(&cobra.Command{
		Use:   "on --service SERVICE",
		Short: "Begin the maintenance of a service",
		Long: "Begin the maintenance of a service: requests get 503 with the reason maintenance,\n" +
			"and with the error page of their route. It lasts until \"sluice maintenance off\" or\n" +
			"for the time of --for, as a drain does: see \"sluice drain --help\".",
	})
	begin.Flags().StringVar(&on.why, "why", "", "`reason` to show to clients and operators")
	begin.Flags().DurationVar(&on.lasts, "for", 0, "end it by itself after this `time`, such as 30m")
	begin.Flags().StringVar(&on.except, "except", "", "addresses or networks of `clients` whose requests go on, with commas between them")
	command.AddCommand(begin, new(maintenance).command(&cobra.Command{
		Use:   "off --service SERVICE",
		Short: "End the maintenance of a service",
		Long:  "End the maintenance of a service: requests go to its peers again.",
	}))
	return command
}

// command completes c, which executes o.
func (o *maintenance) command(c *cobra.Command) *cobra.Command {
	o.query = url.Values{}
	c.Args = noArguments
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.service == "" {
			return &usageError{errors.New("--service SERVICE is missing")}
		}
		if o.lasts != 0 {
			o.query.Set("for", o.lasts.String())
		}
		if o.except != "" {
			o.query.Set("except", o.except)
		}
		o.query.Set("by", userAtHost())
		o.query.Set("why", o.why)
		ctx, stop := untilSignal(cmd)
		defer stop()
		return o.carryOut(ctx, cmd.OutOrStdout())
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.service, "service", "", "`service` that is worked on")
	return c
}

func (o *maintenance) carryOut(ctx context.Context, out io.Writer) error {
	path := "/api/services/" + url.PathEscape(o.service) + "/maintenance/off"
	if o.on {
		path = "/api/services/" + url.PathEscape(o.service) + "/maintenance/on"
	}
	var done admin.OperatedService
	if err := o.askJSON(ctx, http.MethodPost, path, o.query, &done); err != nil {
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
