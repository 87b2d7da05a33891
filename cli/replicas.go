package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
	"sluice/consul/registration"
	"sluice/observe/wake"
)

func newReplicas() *cobra.Command {
	var v view
	var wait time.Duration
	command := &cobra.Command{
		Use:   "replicas",
		Short: "Show the replicas of sluice and whether they agree",
		Long: "Show every sluice that is registered in Consul with the same service name, and\n" +
			"in what they differ: configuration, services, instances, routes, orders or shares. It\n" +
			"needs consul.register.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := query[admin.Replicas]{api: &v.api, path: "/api/replicas", write: writeReplicas}
			if !cmd.Flags().Changed("wait") {
				return look(cmd, v, q)
			}
			if v.watch || v.asJSON {
				return &usageError{errors.New("--watch, --json and --wait exclude each other")}
			}
			ctx, stop := untilSignal(cmd)
			defer stop()
			return awaitAgreement(ctx, cmd.OutOrStdout(), q, wait)
		},
	}
	v.addFlags(command)
	command.Flags().DurationVar(&wait, "wait", 0, "wait up to this `time` until all agree, else fail")
	return command
}

// awaitAgreement polls until all replicas agree.
func awaitAgreement(ctx context.Context, out io.Writer, q query[admin.Replicas], limit time.Duration) error {
	deadline := time.Now().Add(limit)
	return wake.Repeat(ctx, 500*time.Millisecond, func() (bool, error) {
		v, err := q.get(ctx)
		if err != nil {
			return false, err
		}
		converged := v.Converged != nil && *v.Converged
		if !converged && !time.Now().After(deadline) {
			return false, nil
		}
		if err = writeReplicas(out, v, time.Now()); err == nil && !converged {
			err = fmt.Errorf("the replicas do not agree after %s", limit)
		}
		return true, err
	})
}

func writeReplicas(out io.Writer, v admin.Replicas, now time.Time) error {
	table := newTable(out, "REPLICA\tNODE\tADDRESS\tSTATUS\tVERSION\tUP\tCONFIG\tSERVICES\tINSTANCES\tWHY")
	for _, m := range v.Replicas {
		up, services, instances := "-", "-", "-"
		if m.Started != nil {
			up = terminal.Age(now.Sub(*m.Started))
		}
		if m.Parts != nil {
			services, instances = fmt.Sprint(m.Services), fmt.Sprint(m.Instances)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			printable(m.Name), printable(m.Node), printable(m.Address), m.Status, printable(m.Version), up, printable(m.ConfigHash), services, instances, printableWhy(cmp.Or(m.Error, m.Detail)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, verdict(v))
	return err
}

// verdict describes whether the replicas agree.
func verdict(v admin.Replicas) string {
	var b strings.Builder
	if r := v.Registration; r.State != registration.StateRegistered {
		fmt.Fprintf(&b, "this replica is not registered (%s)", r.State)
		if r.LastError != "" {
			fmt.Fprintf(&b, ": %s", terminal.PrintableLong(r.LastError))
		}
		b.WriteByte('\n')
	}
	switch {
	case v.Converged == nil:
		b.WriteString("unknown whether they agree\n")
	case *v.Converged:
		b.WriteString("they agree\n")
	default:
		b.WriteString("they do not agree\n")
	}
	if v.Error != "" {
		fmt.Fprintf(&b, "  %s\n", terminal.PrintableLong(v.Error))
	}
	for _, d := range v.Differences {
		fmt.Fprintf(&b, "  %s\n", terminal.Printable(d.Summary, 400))
	}
	return b.String()
}
