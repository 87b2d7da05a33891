package cli

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sluice/cli/terminal"
	"sluice/operator"
)

func newOrders() *cobra.Command {
	return show(&cobra.Command{
		Use:   "orders",
		Short: "Show the drains, weights and maintenances that operators have ordered",
		Long: "Show the drains, weights and maintenances that operators have ordered in a running\n" +
			"sluice, also those about peers that are not registered now.",
	}, "/api/orders", writeOrders)
}

func writeOrders(out io.Writer, s operator.Status, now time.Time) error {
	if len(s.Orders) == 0 {
		fmt.Fprintln(out, "no orders")
	} else {
		table := newTable(out, "ORDER\tABOUT\tNODE\tFOR\tENDS IN\tBY\tREPLICAS\tWHY")
		for _, o := range s.Orders {
			what, about, ends, replicas := string(o.Kind), "all its peers", "-", "all"
			if o.Kind == operator.Weight {
				what = fmt.Sprintf("weight %d", o.Weight)
			}
			if !o.OfNode() {
				about = o.Subject()
			}
			if o.Except != "" {
				about += " except for " + o.Except
			}
			if !o.Until.IsZero() {
				ends = terminal.Age(o.Until.Sub(now))
			}
			switch {
			case !s.Shared:
				replicas = "this one"
			case o.Pending:
				replicas = "pending"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", what, printable(about), printable(cmp.Or(o.Node, "-")),
				terminal.Age(now.Sub(o.Since)), ends, printable(cmp.Or(o.By, "-")), replicas, printableWhy(o.Why))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	for _, i := range s.Invalid {
		fmt.Fprintf(out, "the key %s cannot be used: %s\n", printable(i.Key), printableWhy(i.Reason))
	}
	if s.Error != "" {
		fmt.Fprintf(out, "problem: %s\n", printableWhy(s.Error))
	}
	return nil
}
