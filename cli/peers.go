package cli

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
)

func newPeers() *cobra.Command {
	var a api
	var v view
	command := &cobra.Command{
		Use:   "peers [SERVICE…]",
		Short: "Show the peers of a running sluice",
		Long: "Show the peers of a running sluice, or of some services: state, reasons, requests\n" +
			"in flight and in total, failures, latency.",
		ValidArgsFunction: completeServices(&a, 0),
		RunE:              func(cmd *cobra.Command, services []string) error { return look(cmd, v, peersOf(&a, services...)) },
	}
	a.addFlags(command)
	v.addFlags(command)
	return command
}

// peersOf asks for the peers of services, or of all.
func peersOf(a *api, services ...string) query[[]admin.Peer] {
	return query[[]admin.Peer]{api: a, path: "/api/peers", query: url.Values{"service": services}, write: writePeers}
}

func writePeers(out io.Writer, peers []admin.Peer, now time.Time) error {
	if len(peers) == 0 {
		_, err := fmt.Fprintln(out, "no peers")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tPEER\tADDRESS\tSTATE\tFOR\tWEIGHT\tINFLIGHT\tREQUESTS\tFAILURES\tLATENCY\tWHY")
	for _, p := range peers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n",
			printable(p.Service), printable(p.ID), p.Address, p.State, terminal.Age(now.Sub(p.Since)), p.Weight,
			p.Inflight, p.Requests, p.Failures, terminal.Milliseconds(p.LatencyMS), printableWhy(strings.Join(p.Reasons, ", ")))
	}
	return table.Flush()
}

// printable replaces control characters in s, and shortens it to 100 characters.
func printable(s string) string { return terminal.Printable(s, 100) }

// printableWhy is printable with 200 characters: the end of a check's output often has
// the cause.
func printableWhy(s string) string { return terminal.Printable(s, 200) }
