package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/admin"
	"sluice/cli/terminal"
	"sluice/discovery"
)

func newPeers() *cobra.Command {
	var v view
	var s peerScreen
	command := &cobra.Command{
		Use:   "peers [SERVICE…]",
		Short: "Show the peers of a running sluice",
		Long: "Show the peers of a running sluice, or of some services: state, reasons, requests\n" +
			"in flight and in total, failures, latency. SHARE is the part of the requests that a peer\n" +
			"has had lately, and the part that is due to its weight; WHY also says why they differ. Below them are the services of whose\n" +
			"instances nothing is known yet, and those whose peers are stale, since when, and why.\n" +
			"With --watch these come first, and RATE is the requests a second since the last screen.",
		ValidArgsFunction: completeServices(&v.api, 0),
		RunE: func(cmd *cobra.Command, services []string) error {
			if _, ok := peerOrders[s.sort]; s.sort != "" && !ok {
				return &usageError{fmt.Errorf("--sort %s: want one of %s", s.sort, sortNames)}
			}
			s.live = v.watch
			q := peersOf(&v.api, services...)
			return lookAt(cmd, v, q, func(ctx context.Context, out io.Writer) error {
				// First the watches: a service that gets its peers meanwhile is in the table.
				all, err := servicesOf(&v.api).get(ctx)
				if err != nil {
					return err
				}
				peers, err := q.get(ctx)
				if err != nil {
					return err
				}
				return s.write(out, peers, unconfirmed(all, services), time.Now())
			})
		},
	}
	v.addFlags(command)
	command.Flags().StringVar(&s.sort, "sort", "", "show the largest first: "+sortNames)
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

// sortNames are the names of peerOrders.
const sortNames = "latency, requests, failures or state"

// peerOrders are the orders of --sort. The peers with the largest values come first.
var peerOrders = map[string]func(p admin.Peer, rate float64) float64{
	"latency":  func(p admin.Peer, _ float64) float64 { return p.LatencyMS },
	"requests": func(p admin.Peer, rate float64) float64 { return cmp.Or(rate, float64(p.Requests)) },
	"failures": func(p admin.Peer, _ float64) float64 { return float64(p.Failures) },
	"state":    func(p admin.Peer, _ float64) float64 { return float64(slices.Index(peerStates, p.State)) },
}

// peerStates are the states of peers, the best first.
var peerStates = []string{"up", "warming", "draining", "ejected", "unhealthy"}

// peerScreen writes tables of peers, one after the other with --watch.
type peerScreen struct {
	sort string // a name of peerOrders, or "": as the API does
	live bool   // --watch

	last map[string]uint64 // requests in the screen before, by peer
	at   time.Time         // of the screen before
}

// write writes the table of peers, why there are none of the services whose watches are
// pending, and which ones are stale. On a screen that may be too small, that comes first.
func (s *peerScreen) write(out io.Writer, peers []admin.Peer, unconfirmed []admin.Service, now time.Time) error {
	var notes strings.Builder
	for _, s := range unconfirmed {
		if s.Watch.Pending() && !slices.ContainsFunc(peers, func(p admin.Peer) bool { return p.Service == s.Service }) {
			fmt.Fprintln(&notes, terminal.Printable(fmt.Sprintf("%s: nothing is known about its instances for %s: %s: %s",
				printable(s.Service), terminal.Age(now.Sub(s.Watch.Since)), s.Watch.Source, cmp.Or(s.Watch.LastError, "no answer yet")), 500))
		}
	}
	if len(peers) == 0 && notes.Len() == 0 {
		notes.WriteString("no peers\n")
	}
	notes.WriteString(staleLine(unconfirmed, now))
	if s.live || len(peers) == 0 {
		if _, err := io.WriteString(out, notes.String()); err != nil || len(peers) == 0 {
			return err
		}
	}
	rates := s.rates(peers, now)
	s.order(peers, rates)
	title, cell := "", ""
	if s.live {
		title = "RATE\t"
	}
	table := newTable(out, "SERVICE\tPEER\tADDRESS\tSTATE\tFOR\tWEIGHT\tSHARE\tINFLIGHT\t"+title+"REQUESTS\tFAILURES\tLATENCY\tWHY")
	for _, p := range peers {
		if s.live {
			cell = fmt.Sprintf("%.1f\t", rates[peerKey(p)])
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s%d\t%d\t%s\t%s\n",
			printable(p.Service), printable(p.ID), p.Address, p.State, terminal.Age(now.Sub(p.Since)), p.Weight, shareOf(p),
			p.Inflight, cell, p.Requests, p.Failures, terminal.Milliseconds(p.LatencyMS), printableWhy(strings.Join(whyOf(p), ", ")))
	}
	err := table.Flush()
	if err == nil && !s.live {
		_, err = io.WriteString(out, notes.String())
	}
	return err
}

// shareOf returns the part of the requests that the peer has, and the one that is due to it.
func shareOf(p admin.Peer) string {
	share := "-"
	if p.Share != nil {
		share = fmt.Sprintf("%.0f%%", 100**p.Share)
	}
	return fmt.Sprintf("%s/%.0f%%", share, 100*p.Due)
}

// whyOf returns why the peer gets no requests, or another share of them than is due.
func whyOf(p admin.Peer) []string {
	why := slices.Clone(p.Reasons)
	for _, line := range p.ShareWhy {
		if !slices.Contains(why, line) {
			why = append(why, line)
		}
	}
	return why
}

// rates returns the requests a second of each peer since the screen before. A peer that is
// new, or whose counter has started again, has none.
func (s *peerScreen) rates(peers []admin.Peer, now time.Time) map[string]float64 {
	rates, requests := make(map[string]float64, len(peers)), make(map[string]uint64, len(peers))
	for _, p := range peers {
		key := peerKey(p)
		requests[key] = p.Requests
		if last, ok := s.last[key]; ok && p.Requests > last && now.After(s.at) {
			rates[key] = float64(p.Requests-last) / now.Sub(s.at).Seconds()
		}
	}
	s.last, s.at = requests, now
	return rates
}

// order sorts peers as the user wants. Equal ones stay in the order of the API.
func (s *peerScreen) order(peers []admin.Peer, rates map[string]float64) {
	if value := peerOrders[s.sort]; value != nil {
		slices.SortStableFunc(peers, func(a, b admin.Peer) int {
			return cmp.Compare(value(b, rates[peerKey(b)]), value(a, rates[peerKey(a)]))
		})
	}
}

// peerKey identifies a peer from one screen to the next. A service that was removed and added
// again has a peer twice, of which one drains.
func peerKey(p admin.Peer) string {
	return strings.Join([]string{p.Service, p.Node, p.ID, p.Address, strconv.FormatBool(p.State == "draining")}, "\n")
}

// maxStale is the number of stale services that a line names.
const maxStale = 5

// staleLine names the services whose watches are stale, with time and reason of the longest;
// "": none.
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

// printable replaces control characters in s, and shortens it to 100 characters.
func printable(s string) string { return terminal.Printable(s, 100) }

// printableWhy is printable with 200 characters: the end of a check's output often has the cause.
func printableWhy(s string) string { return terminal.Printable(s, 200) }
