package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
)

// peersQuery reads the peers of a running sluice.
type peersQuery struct {
	api
	services []string // empty: all
}

func newPeers() *cobra.Command {
	var q peersQuery
	var v view
	command := &cobra.Command{
		Use:   "peers [SERVICE…]",
		Short: "Show the peers of a running sluice",
		Long: "Show the peers of a running sluice, or of some services: state, reasons, requests\n" +
			"in flight and in total, failures, latency.",
		RunE: func(cmd *cobra.Command, services []string) error {
			q.services = services
			if v.watch && v.asJSON {
				return &usageError{errors.New("--watch and --json exclude each other")}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return v.run(ctx, cmd.OutOrStdout(), q.get, q.show)
		},
	}
	q.addFlags(command)
	v.addFlags(command)
	return command
}

func (q peersQuery) show(ctx context.Context, out io.Writer, now func() time.Time) error {
	peers, err := q.peers(ctx)
	if err != nil {
		return err
	}
	return writePeers(out, peers, now())
}

func (q peersQuery) peers(ctx context.Context) (peers []admin.Peer, err error) {
	body, err := q.get(ctx)
	if err == nil {
		err = q.decode(body, &peers)
	}
	return peers, err
}

func (q peersQuery) get(ctx context.Context) ([]byte, error) {
	return q.ask(ctx, http.MethodGet, "/api/peers", url.Values{"service": q.services})
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
			printable(p.Service), printable(p.ID), p.Address, p.State, age(now.Sub(p.Since)), p.Weight,
			p.Inflight, p.Requests, p.Failures, latency(p.LatencyMS), printableWhy(strings.Join(p.Reasons, ", ")))
	}
	return table.Flush()
}

// printable replaces control characters in s, and shortens it to 100 characters.
func printable(s string) string {
	return printableUpTo(s, 100)
}

// printableWhy is printable with 200 characters: the end of a check's output often has
// the cause.
func printableWhy(s string) string {
	return printableUpTo(s, 200)
}

func printableUpTo(s string, most int) string {
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return printableLong(s)
}

// printableLong replaces control characters, which could control the terminal.
func printableLong(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// age formats a duration in its largest two units: "3d4h", "5m12s", "7s".
func age(d time.Duration) string {
	d = max(0, d.Truncate(time.Second))
	const day = 24 * time.Hour
	switch {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return d.String()
}

func latency(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", ms)
}
