package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/balancer"
	"sluice/discovery"
	"sluice/observe/events"
	"sluice/test/balancertest"
	"sluice/test/discoverytest"
)

// told returns the kinds and texts of what is in a feed, and is about a service if there is one.
func told(f *events.Feed, service ...string) (lines []string) {
	kept, _ := f.Read(events.Filter{Services: service}, events.ID{})
	for _, e := range kept {
		lines = append(lines, fmt.Sprintf("%s %s: %s", e.Level, e.Kind, e.Text))
	}
	return lines
}

func TestFeedTellsWhatHappensToPeers(t *testing.T) {
	feed := events.New()
	j := newJournal(feed, zerolog.Nop())
	defer j.close()
	pool, err := balancer.NewPool("star", balancertest.Complete(balancer.Options{Notify: j.note, PanicThreshold: .6}))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	a := discovery.Instance{Service: "star", ID: "a", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1}
	b := discovery.Instance{Service: "star", ID: "b", Node: "n", Address: "10.0.0.2", Port: 80, Weight: 1}
	last := 0
	expect := func(what string, want ...string) {
		t.Helper()
		lines := told(feed)
		if got := lines[last:]; !slices.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		last = len(lines)
	}
	apply := func(set ...discovery.Instance) { pool.Apply(slices.Clone(set)) }
	reason := func(i discovery.Instance, r balancer.Reason, down bool, why string) {
		pool.SetReason(i.Key(), r, down, why)
	}

	apply(a, b)
	expect("registration", "info peer.joined: a joined", "info peer.joined: b joined")
	if e, _ := feed.Read(events.Filter{}, events.ID{}); e[0].Service != "star" || e[0].Peer != "a" || e[0].Address != "10.0.0.1:80" || e[0].Node != "n" {
		t.Errorf("got %+v", e[0])
	}
	a.Weight = 5
	apply(a, b)
	expect("weight", "info peer.weight: a changed: weight 1 → 5")
	a.Tags = []string{"v2"}
	apply(a, b)
	expect("tags", "info peer.changed: a changed: tags")
	a.Status, a.Detail = discovery.StatusWarning, "slow"
	apply(a, b)
	expect("a warning", "info peer.changed: a changed: passing → warning")
	a.Status, a.Detail = discovery.StatusCritical, "connection refused"
	apply(a, b)
	expect("a failed check of Consul",
		"warning peer.unhealthy: a is unhealthy, it was up: consul: critical: connection refused")
	a.Status, a.Detail = discovery.StatusPassing, ""
	apply(a, b)
	expect("recovery", "info peer.recovered: a is up, it was unhealthy")
	reason(b, balancer.ReasonEjected, true, "5 failures in a row")
	expect("ejection", "warning peer.ejected: b is ejected, it was up: ejected: 5 failures in a row",
		"warning service.panic: Panic, failing peers get requests too: 1 of 2 peers are healthy")
	reason(b, balancer.ReasonEjected, false, "")
	expect("return", "info peer.recovered: b is up, it was ejected", "info service.panic_over: The panic is over: 2 of 2 peers are healthy")
	balancertest.Drain(pool, "deploy", b.Key())
	expect("drain", "info peer.draining: b is draining, it was up: drain: deploy",
		"info peer.drained: b has drained: no request is in flight")
	balancertest.Drain(pool, "")
	expect("the end of the drain", "info peer.enabled: b is up, it was draining")
	lost := a
	lost.Probation = time.Unix(1000, 0)
	apply(lost, b)
	expect("probation", "warning peer.probation: a changed: lost by the registry, on probation")
	apply(a, b)
	expect("listed again", "info peer.listed: a changed: listed again")
	apply(a)
	expect("removal", "info peer.left: b left: the set of its source has it no more", "info peer.drained: b has drained: no request is in flight")
}

func TestFeedTellsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	a := origin(t, "a")
	r := start(t, static("a", a))
	r.await("sluice is ready", func() bool { return len(told(r.events)) >= 4 })
	want := []string{
		"info sluice.started: sluice test has started",
		"info config.applied: Revision 1 of the configuration was applied: start",
		"info peer.joined: " + a + " joined",
		"info sluice.ready: sluice is ready",
	}
	if got := told(r.events); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.write("services: { a: { peers: [x] } }")
	r.await("the file is refused", func() bool { return len(told(r.events)) > len(want) })
	if got := told(r.events)[len(want)]; !strings.HasPrefix(got, "warning config.refused: The configuration was refused, revision 1 stays in use: ") || strings.Contains(got, "\n") {
		t.Errorf("got %s", got)
	}
	r.write(static("a", a, "b", a))
	r.awaitRevision(2)
	r.await("the revision is told", func() bool {
		return slices.ContainsFunc(told(r.events), func(line string) bool {
			return strings.HasPrefix(line, "info config.applied: Revision 2 of the configuration was applied: changed: "+r.file+", differences: ")
		})
	})
	var list []events.Event
	r.api("/api/events?format=json&kind=config", &list)
	if len(list) != 3 || list[2].Revision != 2 || list[1].Level != events.Warning {
		t.Errorf("got %+v", list)
	}
}

// The registry of a service fails and recovers; a failure is told once.
func TestFeedTellsOfTheRegistry(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	r := start(t, fmt.Sprintf("consul: { addresses: [%q] }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]", consul.URL()))
	count := func(kind events.Kind) (n int) {
		for _, line := range told(r.events) {
			if strings.Contains(line, " "+string(kind)+": ") {
				n++
			}
		}
		return n
	}
	r.await("the peer", func() bool { return count(events.KindJoined) == 1 })
	consul.Break(discoverytest.Fault{Drop: true})
	r.await("the failures", func() bool { return count(events.KindFailing) == 1 && count(events.KindAgentFails) == 1 })
	consul.Heal()
	r.await("the recovery", func() bool { return count(events.KindReadable) == 1 && count(events.KindAgentRecovered) == 1 })
	if n := count(events.KindFailing); n != 1 {
		t.Errorf("%d failures: %s", n, strings.Join(told(r.events), "\n"))
	}
}

// A stream does not delay the end of sluice, tells it, and ends properly.
func TestStreamOfEventsEndsWithSluice(t *testing.T) {
	t.Parallel()
	r := start(t, "shutdown: { grace: 1h }\n"+static("a", origin(t, "a")))
	response, err := http.Get("http://" + r.Address("admin").String() + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	r.stop()
	if body, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(body), string(events.KindStopping)) {
		t.Errorf("%v:\n%s", err, body)
	}
	<-r.ended
}

// A new process continues the feed of the old one: who has followed that one, goes on.
func TestNewProcessContinuesTheFeed(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	text := fmt.Sprintf("consul: { addresses: [%q] }\nservices: { star: { consul: {} } }\nroutes: [{ service: star }]", consul.URL())
	old := start(t, text)
	old.await("the old process is ready", func() bool { return len(told(old.events)) == 4 })
	known, _ := old.events.Read(events.Filter{}, events.ID{})
	next := old.succeed(text, nil, patience)
	if err := <-next.outcome; err != nil {
		t.Fatal(err)
	}
	next.await("the new process is ready", func() bool { return len(told(next.events)) >= 6 })
	later, _ := next.events.Read(events.Filter{}, known[len(known)-1].ID)
	var lines []string
	for _, e := range later {
		lines = append(lines, string(e.Kind))
	}
	// The peers that the old process had do not join.
	if got, want := strings.Join(lines, " "), "sluice.started sluice.ready"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if all := told(next.events); !slices.Equal(all[:4], told(old.events)[:4]) {
		t.Errorf("got %s", strings.Join(all, "\n"))
	}
}
