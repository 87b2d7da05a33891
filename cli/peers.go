package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
	"sluice/discovery"
)

func newPeers() *cobra.Command {
	var a api
	var v view
	command := &cobra.Command{
		Use:   "peers [SERVICE…]",
		Short: "Show the peers of a running sluice",
		Long: "Show the peers of a running sluice, or of some services: state, reasons, requests\n" +
			"in flight and in total, failures, latency; with balance.reported_load also the load that\n" +
			"they report, and the factor of their weight. Below them are the services of whose\n" +
			"instances nothing is known yet, and those whose peers are stale, since when, and why.",
		ValidArgsFunction: completeServices(&a, 0),
		RunE: func(cmd *cobra.Command, services []string) error {
			q := peersOf(&a, services...)
			return lookAt(cmd, v, q, func(ctx context.Context, out io.Writer) error {
				// First the watches: a service that gets its peers meanwhile is in the table.
				all, err := servicesOf(&a).get(ctx)
				if err != nil {
					return err
				}
				peers, err := q.get(ctx)
				if err != nil {
					return err
				}
				return writePeers(out, peers, unconfirmed(all, services), time.Now())
			})
		},
	}
	a.addFlags(command)
	v.addFlags(command)
	return command
}

// peersOf asks for the peers of services, or of all.
func peersOf(a *api, services ...string) query[[]admin.Peer] {
	return query[[]admin.Peer]{api: a, path: "/api/peers", query: url.Values{"service": services}}
}

// servicesOf asks for all services.
func servicesOf(a *api) query[[]admin.Service] {
	return query[[]admin.Service]{api: a, path: "/api/services"}
}

// unconfirmed returns the services of all whose watches are pending or stale; of names only, if
// there are any.
func unconfirmed(all []admin.Service, names []string) []admin.Service {
	return slices.DeleteFunc(all, func(s admin.Service) bool {
		return !s.Watch.Pending() && !isStale(s) || len(names) > 0 && !slices.Contains(names, s.Service)
	})
}

func isStale(s admin.Service) bool {
	return s.Watch != nil && s.Watch.State == discovery.WatchStale.String()
}

// writePeers writes the table of peers, why there are none of the services whose watches
// are pending, and which ones are stale.
func writePeers(out io.Writer, peers []admin.Peer, unconfirmed []admin.Service, now time.Time) error {
	var unknown strings.Builder
	for _, s := range unconfirmed {
		if s.Watch.Pending() && !slices.ContainsFunc(peers, func(p admin.Peer) bool { return p.Service == s.Service }) {
			fmt.Fprintln(&unknown, terminal.NothingKnown(s.Service, s.Watch.Source, now.Sub(s.Watch.Since), s.Watch.LastError))
		}
	}
	stale := staleLine(unconfirmed, now)
	if len(peers) == 0 {
		_, err := io.WriteString(out, cmp.Or(unknown.String(), "no peers\n")+stale)
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tPEER\tADDRESS\tSTATE\tFOR\tWEIGHT\tINFLIGHT\tREQUESTS\tFAILURES\tLATENCY\tWHY")
	for _, p := range peers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n",
			printable(p.Service), printable(p.ID), p.Address, p.State, terminal.Age(now.Sub(p.Since)), p.Weight,
			p.Inflight, p.Requests, p.Failures, terminal.Milliseconds(p.LatencyMS), printableWhy(strings.Join(why(p), ", ")))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(out, unknown.String()+stale)
	return err
}

// maxStale is the number of stale services that a line names.
const maxStale = 5

// staleLine names the services whose watches are stale, with the time and the reason of the one that is so for the longest; "" if
// there are none.
func staleLine(services []admin.Service, now time.Time) string {
	var names []string
	var first *admin.Watch
	for _, s := range services {
		if !isStale(s) {
			continue
		}
		names = append(names, printable(s.Service))
		if first == nil || s.Watch.Since.Before(first.Since) {
			first = s.Watch
		}
	}
	if first == nil {
		return ""
	}
	verb := "is"
	if len(names) > 1 {
		verb = "are"
	}
	list := strings.Join(names[:min(len(names), maxStale)], ", ")
	if more := len(names) - maxStale; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s %s stale for %s: %s: %s\n", list, verb, terminal.Age(now.Sub(first.Since)),
		printable(first.Source), printableWhy(cmp.Or(first.LastError, "no answer yet")))
}

// why returns the reasons of the state of a peer, and what the load that it reports does to its weight.
func why(p admin.Peer) []string {
	if p.Load == 0 {
		return p.Reasons
	}
	return append(slices.Clone(p.Reasons), fmt.Sprintf("load %.2f, weight × %.2f", p.Load, cmp.Or(p.LoadFactor, 1)))
}

// printable replaces control characters in s, and shortens it to 100 characters.
func printable(s string) string { return terminal.Printable(s, 100) }

// printableWhy is printable with 200 characters: the end of a check's output often has
// the cause.
func printableWhy(s string) string { return terminal.Printable(s, 200) }
