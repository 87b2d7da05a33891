package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/admin"
	"sluice/discovery/discoverytest"
)

// succession is a process that is to take the place of another one. Both are in
// this one here, and have listeners of their own.
type succession struct {
	*running
	outcome chan error // capacity 1: of the replacing, as the old process has it
}

// succeed starts a gateway with the configuration in place of r. Pass, if not nil,
// changes what r hands over; the new gateway's patience is turn.
func (r *running) succeed(text string, pass func(io.ReadCloser) io.ReadCloser, turn time.Duration) *succession {
	r.t.Helper()
	s := &succession{running: newRunning(r.t, text), outcome: make(chan error, 1)}
	asked, serves := make(chan struct{}), make(chan struct{})
	reader, writer := io.Pipe()
	var replacing sync.WaitGroup
	replacing.Go(func() {
		r.ReplaceBy(func(give func(io.Writer) error) (err error) {
			defer func() { s.outcome <- err }()
			<-asked
			if err := give(writer); err != nil {
				r.t.Errorf("give: %v", err)
			}
			writer.Close()
			select {
			case <-serves:
				return nil
			case <-s.ended:
				return errors.New("the new process has ended")
			}
		})
	})
	r.t.Cleanup(replacing.Wait)
	s.run(Options{
		Inherit: func() (io.ReadCloser, bool, error) {
			close(asked)
			if pass != nil {
				return pass(reader), true, nil
			}
			return reader, true, nil
		},
		Serving: func() error { close(serves); return nil },
	}, time.Millisecond, func(g *Gateway) { g.turnPatience = turn })
	return s
}

// drain is an operator's order.
func (r *running) drain(service, id string) {
	r.t.Helper()
	request, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/api/peers/%s/%s/drain", r.Address("admin"), service, id), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if status, body := r.do(request); status != 200 {
		r.t.Fatalf("drain: %d %s", status, body)
	}
}

// A new process goes on with what the old one knows, although Consul is away: with
// the peers, those of services found in the catalog too, and with the drains.
func TestNewProcessKnowsWhatTheOldOneDid(t *testing.T) {
	consul := discoverytest.Start(t)
	a, b := origin(t, "a"), origin(t, "b")
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)), discoverytest.Instance("star", "star-2", port(t, b)))
	consul.Set("found", discoverytest.Instance("found", "found-1", port(t, b)))
	text := fmt.Sprintf("consul: { addresses: [%q] }\ncatalog: {}\nservices: { star: { consul: {} } }\nroutes: [{ service: star }, { path: /found, service: found }]", consul.URL())
	old := start(t, text)
	old.await("both are served", func() bool {
		star, _ := old.get("/")
		found, _ := old.get("/found")
		return star == 200 && found == 200
	})
	old.drain("star", "star-2")

	consul.Break(discoverytest.Fault{Drop: true})
	new := old.succeed(text, nil, patience)
	var v admin.Readiness
	if status := new.api("/readyz", &v); status != 200 || len(v.Missing)+len(v.Restored) > 0 {
		t.Errorf("its first answer: %d %+v", status, v)
	}
	if err := <-new.outcome; err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if status, body := new.get("/"); status != 200 || body != "a" {
			t.Errorf("star: %d %q", status, body)
		}
	}
	if status, body := new.get("/found"); status != 200 || body != "b" {
		t.Errorf("found: %d %q", status, body)
	}
	new.await("its watch is stale", func() bool { return new.watchOf("star").State == "stale" })
	if p := new.peers()[b]; p.State != "draining" && !strings.Contains(fmt.Sprint(p), "drain") {
		t.Errorf("the drained peer %+v", p)
	}

	consul.Heal()
	consul.Set("star", discoverytest.Instance("star", "star-3", port(t, b)))
	new.await("Consul has answered", func() bool { return new.watchOf("star").State == "fresh" })
}

// From the moment that the new process asks until it serves, or has failed, the
// old one leaves Consul alone.
func TestOneProcessAtATimeFollowsConsul(t *testing.T) {
	consul := discoverytest.Start(t)
	a, b := origin(t, "a"), origin(t, "b")
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
	old := start(t, starAnd(consul.URL(), ""))
	old.await("it is served", func() bool { status, _ := old.get("/"); return status == 200 })
	var before int
	new := old.succeed(starAnd(consul.URL(), "  moon: { consul: { filter: wrong } }"), func(given io.ReadCloser) io.ReadCloser {
		data, err := io.ReadAll(given)
		if err != nil {
			t.Error(err)
		}
		if n := old.consul.Stats().Connections; n != 0 {
			t.Errorf("the old process has %d connections", n)
		}
		before = len(consul.Requests())
		consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)), discoverytest.Instance("star", "star-2", port(t, b)))
		return io.NopCloser(strings.NewReader(string(data)))
	}, patience)
	if err := <-new.outcome; err != nil {
		t.Fatal(err)
	}
	new.await("the change is seen", func() bool { return len(new.peers()) == 2 })
	if n := len(old.peers()); n != 1 {
		t.Errorf("the old process has %d peers", n)
	}
	if r := consul.Requests()[before]; r.Index != 0 || len(r.Near) > 0 {
		t.Errorf("the first query of the new process: %+v", r)
	}
}

// A new process that would have fewer peers than the old one does not take its
// place, and the old one follows Consul again.
func TestNewProcessThatKnowsLessDoesNotTakeOver(t *testing.T) {
	for name, test := range map[string]struct {
		text string // that the new process has in place of the old one's
		pass func(io.ReadCloser) io.ReadCloser
		away bool // nobody but the old process knows anything
		want string
	}{
		"a mistake in a filter": {text: "{ filter: wrong }", want: `service \"star\": consul http`},
		"a mistake in a filter, and all is on probation": {
			text: "{ filter: wrong }", want: `service \"star\": consul http`,
			pass: func(given io.ReadCloser) io.ReadCloser {
				text, _ := io.ReadAll(given)
				passing := `"status":"passing"`
				return io.NopCloser(strings.NewReader(strings.ReplaceAll(string(text), passing, passing+`,"probation":"2026-01-02T03:04:05Z"`)))
			},
		},
		"an old process that gives nothing": {
			text: "{}", away: true, want: "Internal Server Error",
			pass: func(given io.ReadCloser) io.ReadCloser { discard(given); return nil },
		},
		"an old process that gives what this one cannot read": {
			text: "{}", away: true, want: "cannot be used",
			pass: func(given io.ReadCloser) io.ReadCloser {
				discard(given)
				return io.NopCloser(strings.NewReader(`{"version": 2, "services": {"star": {}}}`))
			},
		},
		"an old process that breaks off": {
			text: "{}", away: true, want: "unexpected EOF",
			pass: func(given io.ReadCloser) io.ReadCloser {
				discard(given)
				return io.NopCloser(strings.NewReader(`{"version": 1, "services": {"star": {}`))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			consul := discoverytest.Start(t)
			a, b := origin(t, "a"), origin(t, "b")
			consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
			text := func(selection string) string {
				return fmt.Sprintf("consul: { addresses: [%q] }\nservices: { star: { consul: %s } }\nroutes: [{ service: star }]", consul.URL(), selection)
			}
			old := start(t, text("{}"))
			old.await("it is served", func() bool { status, _ := old.get("/"); return status == 200 })
			refusal := discoverytest.Fault{Status: 500, Body: "Failed to create boolean expression evaluator"}
			if !test.away {
				refusal.Only = func(r discoverytest.Request) bool { return r.Filter != "" }
			}
			consul.Break(refusal)
			new := old.succeed(text(test.text), test.pass, 100*time.Millisecond)
			if err := <-new.outcome; err == nil {
				t.Fatal("it has taken over")
			}
			<-new.ended
			if new.err == nil || !strings.Contains(new.err.Error(), "goes on") || !strings.Contains(new.log.String()+new.err.Error(), strings.ReplaceAll(test.want, `\"`, `"`)) {
				t.Errorf("its error is %v, its log\n%s", new.err, new.log)
			}
			if strings.Contains(new.log.String(), "deregister") {
				t.Error("it has deregistered what the old one has registered")
			}
			consul.Heal()
			consul.Set("star", discoverytest.Instance("star", "star-2", port(t, b)))
			old.await("the old one follows Consul", func() bool { _, body := old.get("/"); return body == "b" })
		})
	}
}

func discard(r io.ReadCloser) {
	_, _ = io.Copy(io.Discard, r)
	r.Close()
}

// What the old process does not know either keeps nobody from taking over.
func TestServiceThatTheOldProcessDoesNotKnowIsNotWaitedFor(t *testing.T) {
	consul := discoverytest.Start(t)
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, origin(t, "a"))))
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: 500, Body: "No path to datacenter"})
	text := starAnd(consul.URL(), "  moon: { consul: {} }")
	old := startPatient(t, text, time.Millisecond)
	old.await("star is served", func() bool { status, _ := old.get("/"); return status == 200 })
	new := old.succeed(text, nil, patience)
	if err := <-new.outcome; err != nil {
		t.Fatal(err)
	}
	if status, _ := new.get("/"); status != 200 {
		t.Errorf("status %d", status)
	}
}

// An old process does not leave Consul to a new one that is slow.
func TestOldProcessFollowsConsulBesideASlowOne(t *testing.T) {
	consul := discoverytest.Start(t)
	a, b := origin(t, "a"), origin(t, "b")
	consul.Set("star", discoverytest.Instance("star", "star-1", port(t, a)))
	consul.Break(discoverytest.Fault{Only: of("moon"), Status: 500, Body: "No path to datacenter"})
	old := start(t, starAnd(consul.URL(), ""))
	old.await("star is served", func() bool { status, _ := old.get("/"); return status == 200 })
	old.letGoPatience = 50 * time.Millisecond
	next := old.succeed(starAnd(consul.URL(), "  moon: { consul: {} }"), nil, time.Hour)
	var first int // the status of its first answer
	var asking sync.WaitGroup
	asking.Go(func() { first = next.api("/readyz", new(admin.Readiness)) })
	consul.Set("star", discoverytest.Instance("star", "star-2", port(t, b)))
	old.await("it follows", func() bool { _, body := old.get("/"); return body == "b" })
	select {
	case err := <-next.outcome:
		t.Errorf("it has been replaced: %v", err)
	default:
	}
	consul.Heal()
	if err := <-next.outcome; err != nil {
		t.Error(err)
	}
	if asking.Wait(); first != 200 {
		t.Errorf("the first answer of the new process is %d: nobody is to ask it before it serves", first)
	}
}
