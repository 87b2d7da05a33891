package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// NewSource returns a source that reports the instances of another one in Consul, with the mark
// [discovery.Instance.Follower]. client reads the key. It may run as often as the other one.
func NewSource(of discovery.Source, o Options, client *consul.Client, log zerolog.Logger) discovery.Source {
	return &source{of: of, options: o, client: client, log: log}
}

type source struct {
	of      discovery.Source
	options Options
	client  *consul.Client
	log     zerolog.Logger
}

// String describes the other source and the claim.
func (s *source) String() string { return fmt.Sprintf("%v, leader by %s", s.of, &s.options) }

// NamesServices implements discovery.ServiceNamer, as all sources of Consul do.
func (s *source) NamesServices() {}

// memoryPart is the name of the memory of the key. Names of data centres and targets have no space.
const memoryPart = "leader key"

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	r := &run{source: s, report: report, memory: before.PartOf(memoryPart)}
	// The clock may have been put back: the leader would stay as much longer.
	if now := time.Now(); r.memory.LeaderLost.After(now) {
		r.memory.LeaderLost = now
	}
	r.known = s.options.Key == "" || r.memory.Index > 0
	r.marked = r.memory.Leader
	before.Set = unmarked(before.Set)
	before.Memory = slices.DeleteFunc(slices.Clone(before.Memory), func(m discovery.Memory) bool { return m.Part == memoryPart })
	r.last.Memory, r.before = before.Memory, before
	if s.options.Key == "" {
		return s.of.Run(ctx, before, r.apply)
	}
	defer panics.Start(ctx, panics.Watch, r.follow, r.awaitInstances)()
	return s.of.Run(ctx, before, r.apply)
}

// run is one run of a source.
type run struct {
	*source
	report func(discovery.Report)
	before discovery.WatchState // of the other source
	marked string               // whom the key named then

	mu sync.Mutex
	// mu guards the fields below, and is held for report: the last report is the latest.
	last   discovery.Report // of the other source, the last one with a set
	failed error            // what the other source has reported since
	known  bool             // memory.Leader is what the key names
	memory discovery.Memory
	fault  error  // why the key cannot be read; nil: it can
	rivals string // that were logged
}

// patience is how long the other source may be silent before it counts as failing, if the key names
// another leader: as long as a [discovery.Manager] waits before it uses a saved set.
const patience = time.Second

var errSilent = errors.New("the instances are not known yet")

// awaitInstances makes a silent source, such as an agent that hangs, count as failing.
func (r *run) awaitInstances(ctx context.Context) {
	if wake.Await(ctx, time.After(patience)) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last.Known || r.failed != nil {
		return
	}
	r.failed = errSilent
	if r.resumeLocked() {
		// From now on a saved set is in use.
		r.report(discovery.Report{Err: r.failed, Memory: r.memoriesLocked()})
		r.reportLocked()
	}
}

// apply takes a report of the other source.
func (r *run) apply(from discovery.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = from.Err
	if from.Memory == nil {
		from.Memory = r.last.Memory
	}
	if !from.Known {
		r.last.Memory = from.Memory
		r.report(discovery.Report{Err: from.Err, Memory: r.memoriesLocked()})
		if r.resumeLocked() {
			r.reportLocked()
		}
		return
	}
	r.last = from
	r.last.Answered = cmp.Or(from.Answered, time.Now())
	r.reportLocked()
	r.last.Reset = false
}

// resumeLocked uses the set from before the run, if the other source fails, or is silent, at first,
// and the key names another leader than then: the former one must not go on.
func (r *run) resumeLocked() bool {
	if r.last.Known || r.failed == nil || !r.before.Known || r.memory.Leader == r.marked {
		return false
	}
	r.last = discovery.Report{
		Set: r.before.Set, Known: true, Answered: r.before.LastSuccess, Endpoint: r.before.Endpoint, Index: r.before.PartOf("").Index, Restored: r.before.Restored,
		Memory: r.last.Memory,
	}
	return true
}

// memoriesLocked returns the memory of both.
func (r *run) memoriesLocked() []discovery.Memory {
	if r.options.Key == "" || !r.known {
		return r.last.Memory
	}
	return append(slices.Clip(r.last.Memory), r.memory)
}

// reportLocked reports the last set with its leader; without it, if the key was never read.
func (r *run) reportLocked() {
	report := discovery.Report{}
	if r.last.Known && r.known {
		marked, rivals := r.options.mark(discovery.Normalize(r.last.Set), r.memory.Leader)
		r.recordRivals(rivals)
		report = r.last
		report.Set, report.Invalid = marked, slices.Clone(r.last.Invalid)
		for _, i := range rivals {
			report.Invalid = append(report.Invalid, discovery.Invalid{Key: i.ID, Reason: "it claims to lead, as others do: none leads"})
		}
	}
	report.Err, report.Memory = cmp.Or(r.failed, r.fault), r.memoriesLocked()
	r.report(report)
}

// recordRivals logs that several instances claim to lead.
func (r *run) recordRivals(rivals []discovery.Instance) {
	var ids []string
	for _, i := range rivals {
		ids = append(ids, i.ID)
	}
	text := strings.Join(ids, ", ")
	if text != "" && text != r.rivals {
		r.log.Warn().Str("service", rivals[0].Service).Str("leader_by", r.options.String()).Strs("instances", ids).
			Msg("several instances claim to lead: none does")
	}
	r.rivals = text
}
