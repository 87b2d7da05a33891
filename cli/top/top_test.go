package top

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"sluice/admin"
	"sluice/observe/events"
	"sluice/test/verify"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// reading returns what sluice says after some seconds, in which star had 20 requests a
// second and moon none.
func reading(seconds int) Reading {
	at := start.Add(time.Duration(seconds) * time.Second)
	n := uint64(seconds)
	return Reading{
		At: at,
		Services: []admin.Service{
			{Service: "moon", Peers: map[string]int{"up": 2}, Eligible: 2, P99MS: 40, Watch: &admin.Watch{State: "fresh"}},
			{Service: "star", Peers: map[string]int{"up": 1, "ejected": 1}, Eligible: 1, Inflight: 7, Requests: 100 + 20*n, Errors: 3 * n, P50MS: 1.5, P99MS: 12.25,
				Watch: &admin.Watch{Source: "consul", State: "stale", Since: at.Add(-90 * time.Second), LastError: "refused\x1b[2J"}},
			{Service: "sun", Peers: map[string]int{"unhealthy": 1}, Panic: true},
		},
		Events: []events.Event{
			{Time: at, Level: events.Warning, Service: "star", Text: "a is ejected\x1b[2J"},
			{Time: at, Level: events.Info, Text: "applied"},
		},
	}
}

// peersOfStar adds the peers of star to a reading.
func peersOfStar(r Reading) Reading {
	n := uint64(r.At.Sub(start).Seconds())
	r.Peers = []admin.Peer{
		{Service: "star", ID: "a", Address: "10.0.0.1:80", State: "ejected", Reasons: []string{"5 failures", "in a row"}, Since: r.At.Add(-time.Minute), Weight: 1, Requests: 7 * n, Failures: n},
		{Service: "star", ID: "b", Address: "10.0.0.2:80", State: "up", Used: true, Since: start, Weight: 10, Requests: 13 * n, LatencyMS: 2.5},
	}
	return r
}

// screen is a model that is driven as Bubble Tea does it, without its timers.
type screen struct {
	t *testing.T
	model
	order tea.Cmd // the latest
}

func newScreen(t *testing.T, width, height int, ask Ask) *screen {
	s := &screen{t: t, model: newModel(t.Context(), "127.0.0.1:8081", ask)}
	s.order = s.Init()
	s.send(tea.WindowSizeMsg{Width: width, Height: height})
	return s
}

func (s *screen) send(message tea.Msg) {
	s.t.Helper()
	changed, order := s.Update(message)
	if s.model = changed.(model); order != nil {
		s.order = order
	}
	lines := s.lines()
	verify.That(s.t, len(lines) <= s.height, "%d lines on a screen of %d", len(lines), s.height)
	for _, line := range lines {
		width := ansi.StringWidth(line)
		verify.That(s.t, width <= s.width, "a line is %d wide: %q", width, line)
	}
}

// take has the next reading taken.
func (s *screen) take() {
	s.t.Helper()
	s.order = s.model.read()
	s.send(s.order())
}

// press presses keys: names, or characters.
func (s *screen) press(keys ...string) {
	s.t.Helper()
	codes := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "down": tea.KeyDown, "up": tea.KeyUp, "end": tea.KeyEnd, "backspace": tea.KeyBackspace}
	for _, key := range keys {
		if code, ok := codes[key]; ok {
			s.send(tea.KeyPressMsg{Code: code})
			continue
		}
		for _, r := range key {
			s.send(tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
}

// text returns the screen without styles, its lines without trailing spaces.
func (s *screen) text() string {
	var lines []string
	for _, line := range s.lines() {
		lines = append(lines, strings.TrimRight(ansi.Strip(line), " "))
	}
	return strings.Join(lines, "\n")
}

// want fails the test if the screen lacks a line.
func (s *screen) want(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		verify.That(s.t, slices.Contains(strings.Split(s.text(), "\n"), line), "the screen lacks the line\n%s\nit is\n%s", line, s.text())
	}
}

// selected returns the key of the selected row.
func (s *screen) selected() string {
	rows := s.rows()
	if len(rows) == 0 {
		return ""
	}
	return rows[s.place(rows)].key
}

// steady answers with later and later readings, with peers if asked for.
func steady() Ask {
	n := 0
	return func(_ context.Context, service string) (Reading, error) {
		n++
		if service == "star" {
			return peersOfStar(reading(n)), nil
		}
		return reading(n), nil
	}
}

func TestServicesAndPeers(t *testing.T) {
	s := newScreen(t, 140, 24, steady())
	s.want("…")
	s.take()
	s.want(
		"sluice 127.0.0.1:8081  services 3  peers 3 of 5 get requests  - req/s",
		"   SERVICE  PEERS  REQ/S  ERR/S    P50     P99  INFLIGHT  STATE",
		"!  sun        0/1      -      -      -       -         0  no peer gets requests, panic: failing peers get requests too, 1 unhealthy",
		"-  star       1/2      -      -  1.5ms  12.2ms         7  1 ejected, consul is stale for 1m30s: refused?[2J",
		"   moon       2/2      -      -      -  40.0ms         0",
		"! "+start.Add(time.Second).Local().Format("15:04:05")+" star  a is ejected?[2J",
		"q quit  ↑↓ select  enter peers  / filter  s sort: trouble",
	)
	s.take()
	s.want(
		"sluice 127.0.0.1:8081  services 3  peers 3 of 5 get requests  20 req/s",
		"-  star       1/2     20    3.0  1.5ms  12.2ms         7  1 ejected, consul is stale for 1m30s: refused?[2J",
	)
	s.press("down")
	verify.Equal(t, s.selected(), "star", "down selects")
	s.press("s") // by requests: star is first, and stays selected
	s.want("q quit  ↑↓ select  enter peers  / filter  s sort: requests")
	verify.That(t, s.rows()[0].key == "star" && s.selected() == "star", "by requests: %s", s.text())
	s.press("enter")
	s.want("sluice 127.0.0.1:8081  service star", "…")
	s.send(s.order())
	s.take()
	s.want(
		"   PEER  ADDRESS      STATE    FOR   WEIGHT  REQ/S  FAIL/S  LATENCY  INFLIGHT  WHY",
		"   b     10.0.0.2:80  up       4s        10     13       -    2.5ms         0",
		"!  a     10.0.0.1:80  ejected  1m0s       1    7.0     1.0        -         0  5 failures, in a row",
	)
	s.press("esc")
	verify.Equal(t, s.selected(), "star", "after esc is selected")
}

// A peer of a service that was removed and added again is there twice until it has drained: each has its own rate, and its own row.
func TestPeerOfTwoPools(t *testing.T) {
	n := uint64(0)
	s := newScreen(t, 140, 24, func(context.Context, string) (Reading, error) {
		n++
		r := reading(int(n))
		r.Peers = []admin.Peer{
			{Service: "star", ID: "a", Address: "10.0.0.1:80", State: "up", Used: true, Since: start, Weight: 1, Requests: 20 * n},
			{Service: "star", ID: "a", Address: "10.0.0.1:80", State: "draining", Since: start, Weight: 1, Requests: 1000 + 3*n},
		}
		return r, nil
	})
	s.take()
	s.press("down", "enter")
	s.send(s.order())
	s.take()
	s.want(
		"-  a     10.0.0.1:80  draining  3s        1    3.0       -        -         0",
		"   a     10.0.0.1:80  up        3s        1     20       -        -         0",
	)
	s.press("down")
	verify.Equal(t, s.rows()[s.place(s.rows())].cells[3], "up", "down selects")
}

// An answer to the reading of a service that is no longer shown changes nothing.
func TestLateAnswerIsDropped(t *testing.T) {
	s := newScreen(t, 100, 24, steady())
	s.take()
	late := s.model.read()
	s.press("enter")
	before := s.text()
	s.send(late())
	verify.Equal(t, s.text(), before, "the screen became")
}

// A service whose instances nobody has listed yet may have some.
func TestServiceOfWhichNothingIsKnown(t *testing.T) {
	s := newScreen(t, 100, 24, func(_ context.Context, service string) (Reading, error) {
		return Reading{At: start, Services: []admin.Service{
			{Service: "star", Watch: &admin.Watch{Source: "consul", State: "pending", Since: start.Add(-90 * time.Second), LastError: "refused\x1b[2J"}},
		}}, nil
	})
	s.take()
	s.press("enter")
	s.take()
	s.want("star: nothing is known about its instances for 1m30s: consul: refused?[2J")
}

func TestFilter(t *testing.T) {
	s := newScreen(t, 100, 24, steady())
	s.take()
	s.press("/", "stq", "backspace")
	s.want("filter: st▏  enter keeps it, esc clears it")
	verify.That(t, s.selected() == "star" && !strings.Contains(s.text(), "moon"), "filtered by st:\n%s", s.text())
	s.press("enter", "down") // no longer part of the filter
	s.want("q quit  ↑↓ select  enter peers  / filter  s sort: trouble  filter: st")
	s.press("esc")
	s.want("   moon       2/2      -      -      -  40.0ms         0")
	s.press("/", "nope")
	s.want("nothing matches nope")
}

// What sluice has said stays on the screen while it does not answer.
func TestProblemIsShown(t *testing.T) {
	fails := false
	ask := steady()
	s := newScreen(t, 100, 24, func(ctx context.Context, service string) (Reading, error) {
		if fails {
			return Reading{}, errors.New("no sluice answers")
		}
		return ask(ctx, service)
	})
	s.take()
	fails = true
	s.take()
	s.want("! no sluice answers", "   moon       2/2      -      -      -  40.0ms         0")
	fails = false
	s.take()
	verify.That(t, !strings.Contains(s.text(), "no sluice answers"), "after an answer:\n%s", s.text())
}

// Every size of a screen is filled and not exceeded, and the selected row is on it.
func TestSizes(t *testing.T) {
	var many Reading
	for i := range 300 {
		many.Services = append(many.Services, admin.Service{Service: "service-" + string(rune('a'+i%26)) + strings.Repeat("x", i%40)})
	}
	many.At = start
	for _, size := range [][2]int{{1, 1}, {10, 3}, {40, 10}, {80, 24}, {300, 100}} {
		s := newScreen(t, size[0], size[1], func(context.Context, string) (Reading, error) { return many, nil })
		s.take()
		for _, keys := range []string{"down", "end", "up"} {
			s.press(keys)
			shown := s.lines()
			if size[1] >= 10 && !slices.ContainsFunc(shown, func(line string) bool { return strings.Contains(line, reverse) }) {
				t.Errorf("%v: after %s the selected row is not shown:\n%s", size, keys, s.text())
			}
		}
	}
}

func TestQuit(t *testing.T) {
	for _, key := range []tea.KeyPressMsg{{Code: 'q', Text: "q"}, {Code: 'c', Mod: tea.ModCtrl}} {
		_, order := newModel(t.Context(), "", steady()).Update(key)
		verify.Require(t, order != nil, "%s does not quit", key)
		_, ok := order().(tea.QuitMsg)
		verify.That(t, ok, "%s does not quit", key)
	}
}
