package consul

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/discovery"
)

// The agent that runs a check tells the servers its status at once, but an output that
// comes without another status only after 2.5 to 7.5 minutes (check_update_interval). So the
// output of a check that has not passed since its registration is missing in the catalog
// for as long. The agent has it. An agent only has the checks of its own node, and does not
// block, so a watch asks once, after firstAsk, and again only while the agent has a check
// that has not run.
const (
	firstAsk   = 5 * time.Second // most apps pass within it
	lastAsk    = 5 * time.Minute // the longest time between two questions
	askTimeout = 2 * time.Second
)

// registered identifies an instance with an agent.
type registered struct{ node, id string }

// silent returns the checks that are the reason why an instance is not passing, and that
// have no output.
func silent(entries []serviceEntry) map[registered]*entryCheck {
	var found map[registered]*entryCheck
	for _, e := range entries {
		if e.Node == nil || e.Service == nil {
			continue
		}
		if _, reason := health(e.Checks); reason != nil && reason.silent() {
			if found == nil {
				found = make(map[registered]*entryCheck)
			}
			found[registered{e.Node.Node, e.Service.ID}] = reason
		}
	}
	return found
}

// silence is what a watch knows about silent checks.
type silence struct {
	heard map[registered]heard
	due   time.Time     // of the next question; zero: there is none
	delay time.Duration // before it
}

// heard is what an agent has said about the check of an instance.
type heard struct {
	check  string // its id
	output string // empty: not known
	final  bool   // there is nothing more to ask
}

// note forgets the instances whose checks are no longer silent, and plans a question about new
// ones, which comes later by jitter.
func (s *silence) note(now time.Time, checks map[registered]*entryCheck, jitter time.Duration) {
	if len(checks) == 0 {
		*s = silence{}
		return
	}
	open, fresh := false, false
	known := make(map[registered]heard, len(checks))
	for at, check := range checks {
		h, ok := s.heard[at]
		if !ok || h.check != check.CheckID {
			h, fresh = heard{check: check.CheckID}, true
		}
		known[at] = h
		open = open || !h.final
	}
	s.heard = known
	switch {
	case !open:
		s.due = time.Time{}
	case fresh:
		s.delay = firstAsk
		if at := now.Add(firstAsk + jitter); s.due.IsZero() || at.Before(s.due) {
			s.due = at
		}
	}
}

// hear records what an agent has said. It reports whether there is a new output.
func (s *silence) hear(now time.Time, checks map[string]*api.HealthCheck) (changed bool) {
	open := false
	for at, h := range s.heard {
		if h.final {
			continue
		}
		check := checks[h.check]
		// A check of the node has no service. An agent that lacks it belongs to another node.
		there := check != nil && check.Node == at.node && (check.ServiceID == at.id || check.ServiceID == "")
		if there {
			h.output = strings.TrimSpace(check.Output)
		}
		h.final = !there || h.output != ""
		open, changed = open || !h.final, changed || h.output != ""
		s.heard[at] = h
	}
	s.due = time.Time{}
	if open {
		s.again(now)
	}
	return changed
}

// again plans the next question.
func (s *silence) again(now time.Time) {
	s.delay = min(2*s.delay, lastAsk)
	s.due = now.Add(s.delay)
}

// explained returns instances with the outputs that are known.
func (s *silence) explained(instances []discovery.Instance, checks map[registered]*entryCheck) []discovery.Instance {
	cloned := false
	for n := range instances {
		at := registered{instances[n].Node, instances[n].ID}
		h, check := s.heard[at], checks[at]
		if h.output == "" || check == nil || instances[n].Detail != check.detail() {
			continue
		}
		if !cloned {
			instances, cloned = slices.Clone(instances), true
		}
		instances[n].Detail = detail(check.name(), h.output)
	}
	return instances
}

// askable returns the silent checks of an answer that the agent may have: it knows nothing of
// those in other data centres and clusters.
func (w *watch) askable(a Answer) map[registered]*entryCheck {
	if w.options.Datacenter != "" || w.options.Peer != "" {
		return nil
	}
	return a.silent
}

// ask asks the agent for the outputs of silent checks, if it is time, and reports whether it
// has any that were not known.
func (w *watch) ask(ctx context.Context) bool {
	if w.silence.due.IsZero() || time.Now().Before(w.silence.due) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var checks map[string]*api.HealthCheck
	_, err := w.loop.GetMore(ctx, consul.Query{
		Path: "agent/checks", WithoutIndex: true, Needs: fmt.Sprintf("service:read for %q", w.options.Service),
		QueryOptions: api.QueryOptions{
			Filter:    fmt.Sprintf("(ServiceName == `%s` or ServiceName == ``) and Status != passing", w.options.Service),
			Namespace: w.options.Namespace, Partition: w.options.Partition,
		},
	}, func(body io.Reader) error { return read(body, &checks) })
	if err != nil {
		w.log.Debug().Err(err).Str("consul_service", w.options.Service).Msg("consul: the outputs of checks are not known")
		w.silence.again(time.Now())
		return false
	}
	return w.silence.hear(time.Now(), checks)
}
