package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	consulsource "sluice/discovery/consul"
	"sluice/proxy/handover"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// successor is a gateway that replaces another one. Both run in this process and have
// different listeners.
type successor struct {
	*running
	outcome chan error // capacity 1: of the replacement, in the old process
}

// succeed starts a gateway with the configuration that replaces r. pass, if not nil, changes
// the state that r hands over. takeover is the takeover timeout of the new gateway.
func (r *running) succeed(text string, pass func(io.ReadCloser) io.ReadCloser, takeover time.Duration) *successor {
	r.t.Helper()
	return r.succeedAfter(text, pass, func(g *Gateway) { g.waits.takeover = takeover })
}

// succeedAfter is succeed after a call of set for the new gateway. Without a text it has the file
// of r.
func (r *running) succeedAfter(text string, pass func(io.ReadCloser) io.ReadCloser, set func(*Gateway)) *successor {
	r.t.Helper()
	s := &successor{running: newRunning(r.t, text), outcome: make(chan error, 1)}
	s.listen, s.port = r.listen, r.port
	if text == "" {
		s.file = r.file
	}
	asked, serves, over := make(chan struct{}), make(chan struct{}), make(chan struct{})
	reader, writer := io.Pipe()
	var replacing sync.WaitGroup
	replacing.Go(func() {
		outcome := errors.New("the old process starts no new one")
		r.ReplaceBy(func(give func(io.Writer) error) error {
			select {
			case <-asked:
			case <-over:
				outcome = errors.New("the new process has not started")
				return outcome
			}
			outcome = give(writer)
			verify.That(r.t, outcome == nil, "give: %v", outcome)
			writer.Close()
			select {
			case <-serves:
			case <-s.ended:
				outcome = errors.New("the new process has ended")
			}
			return outcome
		})
		writer.Close()
		s.outcome <- outcome // now r can be replaced again
	})
	r.t.Cleanup(func() { close(over); replacing.Wait() })
	s.run(Options{
		RequestState: func() (io.ReadCloser, bool, error) {
			close(asked)
			if pass != nil {
				return pass(reader), true, nil
			}
			return reader, true, nil
		},
		Serving: func() error {
			if s.port != nil {
				s.port.pass(true)
			}
			close(serves)
			return nil
		},
	}, set)
	return s
}

// fails waits until the new process has ended, which must not take over.
func (s *successor) fails() {
	s.t.Helper()
	verify.Require(s.t, <-s.outcome != nil, "the new process has taken over")
	<-s.ended
	if s.port != nil {
		s.port.pass(false)
	}
}

// drain drains a peer through the admin API.
func (r *running) drain(service, id string) {
	r.t.Helper()
	verify.Equal(r.t, r.command("/api/peers/"+service+"/"+id+"/drain"), http.StatusOK, "drain %s", id)
}

// upgrade is succeed, and returns the new gateway, which must take over.
func (r *running) upgrade(text string, pass func(io.ReadCloser) io.ReadCloser) *running {
	r.t.Helper()
	s := r.succeed(text, pass, patience)
	verify.NoError(r.t, <-s.outcome)
	return s.running
}

// Without Consul, a new process restores the state of the old one: the peers, also those of
// services found in the catalog, and the drains.
func TestNewProcessRestoresTheState(t *testing.T) {
	t.Parallel()
	consul, at := startStar(t, "a", "b")
	b := at[1]
	tagged(t, consul, "found", b, "web", "blue")
	text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: {}\nservices: { star: { consul: {} } }\nroutes: [{ service: star }, { path: /found, service: found }]", consul.URL())
	old := start(t, text)
	old.awaitStatus("/", 200)
	old.awaitStatus("/found", 200)
	old.drain("star", "star-2")

	consul.Break(discoverytest.Fault{Drop: true})
	next := old.upgrade(text, nil)
	status, v := next.readyz()
	verify.That(t, status == 200 && len(v.Missing)+len(v.Restored) == 0, "first readyz: %d %+v", status, v)
	for range 4 {
		next.gets("/", "a")
	}
	next.gets("/found", "b")
	services, _ := next.finder.Services()
	verify.That(t, slices.ContainsFunc(services, func(s consulsource.CatalogService) bool {
		return s.Name == "found" && slices.Equal(s.Tags, []string{"blue", "web"})
	}), "services of the catalog: %+v", services)
	next.await("a stale watch", func() bool { return next.watchOf("star").State == "stale" })
	p := next.peers()[b]
	verify.That(t, p.State == "draining" || strings.Contains(fmt.Sprint(p), "drain"), "the drained peer %+v", p)

	consul.Heal()
	consul.Set("star", star(t, 3, b))
	next.await("an answer of Consul", func() bool { return next.watchOf("star").State == "fresh" })
}

// An upgrade does not take a route from the service that has it. A new process does not serve
// before it has read the tags of the instances, however long that takes: the old one has their
// routes.
func TestNewProcessKeepsTheHoldersOfRoutes(t *testing.T) {
	t.Parallel()
	consul := discoverytest.Start(t)
	tagged(t, consul, "star", origin(t, "star"), "sluice.route=h/x")
	text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice] }", consul.URL())
	old := start(t, text)
	old.answers("h/x", "star")
	tagged(t, consul, "moon", origin(t, "moon"), "sluice.route=h/x", "sluice.route=h/moon")
	old.answers("h/moon", "moon")
	next := old.succeedAfter(text, nil, func(g *Gateway) { g.waits.start, g.waits.takeover = 0, patience })
	verify.NoError(t, <-next.outcome)
	next.gets("h/x", "star", "the first request")
	next.gets("h/moon", "moon")
}

// Other versions of sluice know the parts of the state by these names.
func TestNamesOfTheState(t *testing.T) {
	t.Parallel()
	r := start(t, static("star", origin(t, "a")))
	var text bytes.Buffer
	verify.NoError(t, handover.Save(&text, r.parts(0)))
	var state map[string]json.RawMessage
	verify.NoError(t, json.Unmarshal(text.Bytes(), &state))
	verify.Slices(t, slices.Sorted(maps.Keys(state)), []string{
		"access", "acme_certificates", "by_operator", "catalog", "certificates", "chains", "fleet_limits", "given_shares", "history", "intentions",
		"mesh_identity", "orders", "out_of_service", "registered_as", "route_holders", "services", "short", "ticket_keys", "version",
	}, "names")
}

// The old process does not query Consul from the start of the new one until that serves or
// fails.
func TestOneProcessAtATimeWatchesConsul(t *testing.T) {
	t.Parallel()
	consul, at := startStar(t, "a")
	const catalog = "catalog: { select: { name: nothing } }\n"
	old := start(t, catalog+starAnd(consul.URL(), ""))
	old.awaitStatus("/", 200)
	var before int
	next := old.upgrade(catalog+starAnd(consul.URL(), "  moon: { consul: { filter: wrong } }"), afterHandover(t, func() {
		verify.Equal(t, old.registries.consul.Stats().Connections, 0, "the old process has connections")
		before = len(consul.Requests())
		consul.Set("star", star(t, 1, at[0]), star(t, 2, origin(t, "b")))
	}))
	next.await("the change of the set", func() bool { return len(next.peers()) == 2 })
	verify.Equal(t, len(old.peers()), 1, "the old process has peers")
	after := consul.Requests()[before:]
	first := slices.IndexFunc(after, func(r discoverytest.Request) bool { return r.Service == "star" })
	verify.That(t, first >= 0 && after[first].Index == 0 && after[first].Near == "", "the first query of the new process is %d of %+v", first, after)
}

// A new process without peers that the old one has does not replace it, and the old one
// watches Consul again.
func TestNewProcessThatLacksPeersDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	const passing = `"status":"passing"`
	for name, test := range map[string]struct {
		old  string // the service in the old process; "": { consul: {} }
		text string // selection of the new process
		pass func(io.ReadCloser) io.ReadCloser
		away bool // Consul answers no query of the new process
		want string
	}{
		"an invalid filter": {text: "{ filter: wrong }", want: `service "star": consul http`},
		"an invalid filter, and all instances on probation": {
			text: "{ filter: wrong }", want: `service "star": consul http`,
			pass: func(given io.ReadCloser) io.ReadCloser {
				return edited(given, passing, passing+`,"probation":"2026-01-02T03:04:05Z"`)
			},
		},
		"an old process without a state": {
			text: "{}", away: true, want: `service "star"`,
			pass: func(given io.ReadCloser) io.ReadCloser { _, _ = io.Copy(io.Discard, given); return nil },
		},
		"a state of another version": {
			text: "{}", away: true, want: "cannot be used",
			pass: func(given io.ReadCloser) io.ReadCloser { return edited(given, `"version":1`, `"version":2`) },
		},
		// The old process does not know a key in its configuration: its peers are in that.
		"peers of the configuration of the old process": {old: "{ peers: [%q] }", text: "{}", away: true, want: `service "star"`},
		"a set of another selection, as of a version that describes it otherwise": {
			text: "{}", away: true, want: `service "star"`,
			pass: func(given io.ReadCloser) io.ReadCloser {
				return edited(given, `"source":"consul service`, `"source":"consul's service`)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consul, at := startStar(t, "a")
			text := func(service string) string {
				return fmt.Sprintf("consul: { addresses: [%q] }\nservices: { star: %s }\nroutes: [{ service: star }]", consul.URL(), service)
			}
			old := start(t, text("{ consul: {} }"))
			if test.old != "" {
				old.replace(text(fmt.Sprintf(test.old, at[0])))
			}
			old.awaitStatus("/", 200)
			refusal := discoverytest.Fault{Status: 500, Body: "Failed to create boolean expression evaluator"}
			if !test.away {
				refusal.Only = func(r discoverytest.Request) bool { return r.Filter != "" }
			}
			consul.Break(refusal)
			takeover := patience // Consul refuses the filter long before
			if test.away {
				takeover = 50 * time.Millisecond
			}
			next := old.succeed(text("{ consul: "+test.text+" }"), test.pass, takeover)
			next.fails()
			if next.err == nil || !strings.Contains(next.err.Error(), "lacks peers") || !strings.Contains(next.log.String()+next.err.Error(), test.want) {
				t.Errorf("error of the new process: %v, its log\n%s", next.err, next.log)
			}
			verify.That(t, !strings.Contains(next.log.String(), "deregister"), "the new process has removed the registration of the old one")
			consul.Heal()
			consul.Set("star", star(t, 2, origin(t, "b")))
			old.answers("/", map[bool]string{true: "b", false: "a"}[test.old == ""])
		})
	}
}

// A reload has replaced the source of a service by one that does not answer, so the old process
// serves with the former peers. A new one would have none.
func TestNewProcessThatLacksPeersOfAFormerSourceDoesNotTakeOver(t *testing.T) {
	t.Parallel()
	for _, former := range []string{"{ consul: {} }", "{ peers: [%q] }"} {
		consul, at := startStar(t, "a")
		text := func(service string) string {
			if strings.Contains(service, "%") {
				service = fmt.Sprintf(service, at[0])
			}
			return fmt.Sprintf("consul: { addresses: [%q] }\nservices: { star: %s }\nroutes: [{ service: star }]", consul.URL(), service)
		}
		old := start(t, text(former))
		old.awaitStatus("/", 200)
		consul.Break(discoverytest.Fault{Drop: true, Only: func(r discoverytest.Request) bool { return r.Filter != "" }})
		now := text(`{ consul: { filter: 'Service.ID != "other"' } }`)
		old.write(now)
		old.await("the reload", func() bool { return old.history.Current().Number == 2 })
		old.gets("/", "a")
		old.succeed(now, nil, 50*time.Millisecond).fails()
		old.gets("/", "a")

		next := old.succeed(now, nil, patience)
		next.awaitLog("the state of the old process is restored")
		old.gets("/", "a")
		consul.Heal()
		verify.NoError(t, <-next.outcome)
		next.gets("/", "a")
	}
}

// edited returns the state that is given, with another text in place of one that it must have.
func edited(given io.ReadCloser, was, is string) io.ReadCloser {
	text, err := io.ReadAll(given)
	if err == nil && !strings.Contains(string(text), was) {
		err = fmt.Errorf("the state has no %s: %s", was, text)
	}
	if err != nil {
		panic(err)
	}
	return io.NopCloser(strings.NewReader(strings.ReplaceAll(string(text), was, is)))
}

// What an earlier selection has found in the catalog, or that of a version which describes it
// otherwise, is served until Consul answers, with what is known about the instances.
func TestNewProcessWithAnotherSelectionOfTheCatalog(t *testing.T) {
	t.Parallel()
	for name, during := range map[string]func(*discoverytest.Consul){ // while it is away too, after 30 s
		"Consul has lost its state": func(c *discoverytest.Consul) { c.Lose(3, "found") },
		"Consul answers":            func(*discoverytest.Consul) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consul := discoverytest.Start(t)
			consul.Set("found", withTags(t, "found", "found-1", origin(t, "found"), "sluice.route=h/x"))
			text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: { tags: [sluice] }\n", consul.URL())
			old := start(t, text)
			old.awaitStatus("h/x", http.StatusOK)
			next := old.succeed(text, func(given io.ReadCloser) io.ReadCloser {
				given = edited(given, `"selection":"`, `"selection":"of another version, `)
				during(consul)
				return given
			}, patience)
			err := <-next.outcome
			verify.Require(t, err == nil, "%v, the log of the new process\n%s", err, next.log)
			for range 20 {
				next.gets("h/x", "found")
			}
			consul.Heal()
			consul.Set("found", withTags(t, "found", "found-2", origin(t, "again"), "sluice.route=h/x"))
			next.answers("h/x", "again")
		})
	}
}

// A service without a set in the old process does not delay a takeover.
func TestTakeoverWithoutASetThatTheOldProcessLacks(t *testing.T) {
	t.Parallel()
	consul, _ := startStar(t, "a")
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: 500, Body: "No path to datacenter"})
	text := starAnd(consul.URL(), "  moon: { consul: {} }")
	old := startWithin(t, text, time.Millisecond)
	old.awaitStatus("/", 200)
	old.upgrade(text, nil).gets("/", "a")
}

// The pause of the old process is limited.
func TestOldProcessWatchesConsulDuringASlowTakeover(t *testing.T) {
	t.Parallel()
	consul, _ := startStar(t, "a")
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: 500, Body: "No path to datacenter"})
	old := start(t, starAnd(consul.URL(), ""))
	old.awaitStatus("/", 200)
	old.waits.paused = 50 * time.Millisecond
	next := old.succeed(starAnd(consul.URL(), "  moon: { consul: {} }"), nil, time.Hour)
	var first int // status of the first readyz
	var asking sync.WaitGroup
	asking.Go(func() { first, _ = next.readyz() })
	consul.Set("star", star(t, 2, origin(t, "b")))
	old.answers("/", "b")
	select {
	case err := <-next.outcome:
		t.Errorf("the old process has been replaced: %v", err)
	default:
	}
	consul.Heal()
	verify.Succeeds(t, <-next.outcome)
	asking.Wait()
	verify.Equal(t, first, 200, "the first readyz of the new process, whose API must not answer before it serves")
}
