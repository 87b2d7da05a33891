// Package top shows services and peers live in a terminal.
package top

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/admin"
	"sluice/cli/terminal"
	"sluice/observe/events"
)

// Reading is the state of a running sluice at one time.
type Reading struct {
	At       time.Time
	Services []admin.Service
	Peers    []admin.Peer   // of one service; none if no service was asked for
	Events   []events.Event // the latest ones, oldest first
}

// Ask asks a running sluice. With a service, its peers and events are asked for, else the
// events of all.
type Ask func(ctx context.Context, service string) (Reading, error)

// row is a line of a table: a service or a peer.
type row struct {
	key    string // identifies it from one reading to the next
	health health
	cells  []string           // one for each column, printable
	search string             // where a filter looks, in lower case
	order  [numOrders]float64 // what each order sorts by, the largest first
}

// health says how a row is marked.
type health uint8

const (
	well health = iota
	impaired
	broken
)

// Orders of rows. Rows that are equal are in the order of their names.
const (
	byTrouble = iota
	byRate
	byErrors
	byP99
	numOrders
)

var orderNames = [numOrders]string{"trouble", "requests", "errors", "latency"}

// The titles of columns. Cells below a title that begins with < are aligned to the right.
var (
	serviceColumns = []string{" ", "SERVICE", "<PEERS", "<REQ/S", "<ERR/S", "<P50", "<P99", "<INFLIGHT", "STATE"}
	peerColumns    = []string{" ", "PEER", "ADDRESS", "STATE", "FOR", "<WEIGHT", "<REQ/S", "<FAIL/S", "<LATENCY", "<INFLIGHT", "WHY"}
)

// serviceRows returns the rows of the services of now. Rates are since before.
func serviceRows(now, before Reading) []row {
	last := make(map[string]admin.Service, len(before.Services))
	for _, s := range before.Services {
		last[s.Service] = s
	}
	rows := make([]row, 0, len(now.Services))
	for _, s := range now.Services {
		old, known := last[s.Service]
		seconds := now.At.Sub(before.At).Seconds()
		requests, failed := rate(s.Requests, old.Requests, known, seconds), rate(s.Errors, old.Errors, known, seconds)
		state, mark := stateOf(s, now.At)
		total := 0
		for _, n := range s.Peers {
			total += n
		}
		rows = append(rows, row{
			key: s.Service, health: mark, search: strings.ToLower(s.Service),
			cells: []string{marks[mark], terminal.Printable(s.Service, 100), fmt.Sprintf("%d/%d", s.Eligible, total),
				perSecond(requests), perSecond(failed), terminal.Milliseconds(s.P50MS), terminal.Milliseconds(s.P99MS), fmt.Sprint(s.Inflight), terminal.Printable(state, 200)},
			order: [numOrders]float64{byTrouble: float64(mark), byRate: requests, byErrors: failed, byP99: s.P99MS},
		})
	}
	return rows
}

// stateOf says for people how a service is.
func stateOf(s admin.Service, now time.Time) (string, health) {
	var says []string
	mark := well
	say := func(h health, format string, values ...any) {
		mark = max(mark, h)
		says = append(says, fmt.Sprintf(format, values...))
	}
	if s.Eligible == 0 {
		say(broken, "no peer gets requests")
	}
	if s.Panic {
		say(broken, "panic: failing peers get requests too")
	}
	for _, state := range []string{"ejected", "unhealthy", "draining", "warming"} {
		if n := s.Peers[state]; n > 0 {
			h := impaired
			if state == "draining" || state == "warming" {
				h = well
			}
			say(h, "%d %s", n, state)
		}
	}
	if w := s.Watch; w != nil {
		if w.State != "fresh" {
			text := fmt.Sprintf("%s is %s for %s", w.Source, w.State, terminal.Age(now.Sub(w.Since)))
			if w.LastError != "" {
				text += ": " + w.LastError
			}
			say(impaired, "%s", text)
		}
		if w.Probation > 0 {
			say(impaired, "%d on probation", w.Probation)
		}
		if len(w.Invalid) > 0 {
			say(impaired, "%d entries cannot be used", len(w.Invalid))
		}
	}
	return strings.Join(says, ", "), mark
}

// peerRows returns the rows of the peers of now. Rates are since before.
func peerRows(now, before Reading) []row {
	last := make(map[string]admin.Peer, len(before.Peers))
	for i, key := range peerKeys(before.Peers) {
		last[key] = before.Peers[i]
	}
	rows := make([]row, 0, len(now.Peers))
	for i, key := range peerKeys(now.Peers) {
		p := now.Peers[i]
		old, known := last[key]
		seconds := now.At.Sub(before.At).Seconds()
		requests, failed := rate(p.Requests, old.Requests, known, seconds), rate(p.Failures, old.Failures, known, seconds)
		mark := well
		switch p.State {
		case "ejected", "unhealthy":
			mark = broken
		case "draining":
			mark = impaired
		default:
			if !p.Used || p.Probation != nil {
				mark = impaired
			}
		}
		why := strings.Join(p.Reasons, ", ")
		rows = append(rows, row{
			key: key, health: mark, search: strings.ToLower(strings.Join([]string{p.ID, p.Address, p.Node, p.State, why, strings.Join(p.Tags, " ")}, "\n")),
			cells: []string{marks[mark], terminal.Printable(p.ID, 60), p.Address, p.State, terminal.Age(now.At.Sub(p.Since)), fmt.Sprint(p.Weight),
				perSecond(requests), perSecond(failed), terminal.Milliseconds(p.LatencyMS), fmt.Sprint(p.Inflight), terminal.Printable(why, 200)},
			order: [numOrders]float64{byTrouble: float64(mark), byRate: requests, byErrors: failed, byP99: p.LatencyMS},
		})
	}
	return rows
}

// peerKeys returns a key for each peer. A peer of a service that was removed and added again is there twice: the one that drains
// comes later, with the second key.
func peerKeys(peers []admin.Peer) []string {
	keys, seen := make([]string, 0, len(peers)), make(map[string]int, len(peers))
	for _, p := range peers {
		key := strings.Join([]string{p.Service, p.Node, p.ID, p.Address}, "\n")
		seen[key]++
		keys = append(keys, fmt.Sprint(key, "\n", seen[key]))
	}
	return keys
}

// rate returns how fast a counter grows. A counter that is new or has started again has
// no rate yet.
func rate(now, before uint64, known bool, seconds float64) float64 {
	if !known || now < before || seconds <= 0 {
		return 0
	}
	return float64(now-before) / seconds
}

func perSecond(rate float64) string {
	switch {
	case rate == 0:
		return "-"
	case rate < 10:
		return fmt.Sprintf("%.1f", rate)
	}
	return fmt.Sprintf("%.0f", rate)
}

// selectRows returns the rows that have all words of filter, in the order.
func selectRows(rows []row, filter string, order int) []row {
	words := strings.Fields(strings.ToLower(filter))
	rows = slices.DeleteFunc(rows, func(r row) bool {
		return slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(r.search, word) })
	})
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(b.order[order], a.order[order]), cmp.Compare(a.key, b.key))
	})
	return rows
}
