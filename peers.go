package main

import (
	"context"
	"encoding/json"
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

// peersQuery asks a running sluice for its peers.
type peersQuery struct {
	api
	services []string // those of all if it is empty
}

func newPeers() *cobra.Command {
	var q peersQuery
	var watch, asJSON bool
	command := &cobra.Command{
		Use:   "peers [SERVICE…]",
		Short: "Show the peers of a running sluice",
		Long: "Show every peer of a running sluice, or those of some services: its state and\n" +
			"why, requests in flight and in all, failures, and how long an answer takes.",
		RunE: func(cmd *cobra.Command, services []string) error {
			q.services = services
			if watch && asJSON {
				return &usageError{errors.New("--watch and --json do not go together")}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			switch {
			case asJSON:
				body, err := q.get(ctx)
				if err == nil {
					_, err = cmd.OutOrStdout().Write(body)
				}
				return err
			case watch:
				return redraw(ctx, cmd.OutOrStdout(), q.show)
			}
			return q.show(ctx, cmd.OutOrStdout(), time.Now)
		},
	}
	flags := command.Flags()
	q.addFlags(command)
	flags.BoolVarP(&watch, "watch", "w", false, "show them again every second, until Ctrl-C")
	flags.BoolVar(&asJSON, "json", false, "print the API's answer as it is")
	return command
}

// redraw has show write a table every second until ctx ends. While sluice does
// not answer it says so and goes on.
func redraw(ctx context.Context, out io.Writer, show func(context.Context, io.Writer, func() time.Time) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var screen strings.Builder
		screen.WriteString("\x1b[H\x1b[2J") // cursor home, clear
		if err := show(ctx, &screen, time.Now); ctx.Err() != nil {
			return nil
		} else if err != nil {
			fmt.Fprintf(&screen, "%v\n", err)
		}
		if _, err := io.WriteString(out, screen.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// show writes the table once.
func (q peersQuery) show(ctx context.Context, out io.Writer, now func() time.Time) error {
	peers, err := q.peers(ctx)
	if err != nil {
		return err
	}
	return writePeers(out, peers, now())
}

// peers returns the peers.
func (q peersQuery) peers(ctx context.Context) ([]admin.Peer, error) {
	body, err := q.get(ctx)
	if err != nil {
		return nil, err
	}
	var peers []admin.Peer
	if err := json.Unmarshal(body, &peers); err != nil {
		return nil, fmt.Errorf("admin API at %s: not an answer of sluice: %w", q.address, err)
	}
	return peers, nil
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

// printable makes a text of the registry fit for a table on a terminal: it
// cannot control it, and is not too long.
func printable(s string) string {
	return printableUpTo(s, 100)
}

// printableWhy is printable for the last column. The end of a check's output tells
// most ("connection refused"), so it has room for that.
func printableWhy(s string) string {
	return printableUpTo(s, 200)
}

// printableUpTo is printable for at most so many characters.
func printableUpTo(s string, most int) string {
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return printableLong(s)
}

// printableLong makes a text of the registry fit for a terminal.
func printableLong(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// age shows a duration in its largest two units: "3d4h", "5m12s", "7s".
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
