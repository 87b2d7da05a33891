// Package roll leads the instances of a service through a command, such as a deployment, a few at
// a time and without a lost request.
//
// Each instance is drained in all replicas of sluice. When nothing is in flight, the command runs.
// Then Consul must have the instance passing for as long as its checks need to notice a failure,
// the pool must use it, and for a while it must neither fail more nor be slower than the others.
// The first instance for which one of this is not so ends the roll.
//
// A lock in Consul keeps another roll of the service away. A roll that was interrupted can go on:
// Consul's KV store has the instances that are done.
package roll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/admin"
	"sluice/observe/panics"
	"sluice/observe/wake"
)

// Sluice is the sluice that a roll drains instances in. Its methods are safe for concurrent use.
type Sluice interface {
	// Peers returns the peers of the service, in one moment.
	Peers(ctx context.Context) ([]admin.Peer, error)
	// Stale returns why what sluice knows of the instances may be old; "": it is not.
	Stale(ctx context.Context) (string, error)
	// Drain drains a peer in all replicas, at most for a time; 0: without an end.
	Drain(ctx context.Context, p admin.Peer, why string, lasts time.Duration) error
	// Enable ends the drain of a peer, which may be absent.
	Enable(ctx context.Context, p admin.Peer) error
	// Busy returns what a drained peer has in flight in any process of any replica, for people;
	// "": nothing.
	Busy(ctx context.Context, p admin.Peer) (string, error)
	// Disagreement returns how the replicas differ in instances or orders, or why that is not
	// known; "": they agree, or there is one.
	Disagreement(ctx context.Context) (string, error)
}

// Options are what a roll does. All durations are above 0, but Settle and Judge.
type Options struct {
	Service string
	Command []string // with placeholders: see expand
	By      string   // who rolls, for people

	Group    string // "node", "datacenter" or a key of meta: instances of one value together; "": each alone
	Parallel int    // instances at a time; 0: one, or with Group all of a value
	Force    bool   // the service may be left without peers

	DrainTimeout   time.Duration // for requests in flight
	CommandTimeout time.Duration
	ReturnTimeout  time.Duration // until the instance is in use and as good as the others
	Settle         time.Duration // how long it must be passing; 0: what its checks need
	Judge          time.Duration // how long it must be as good as the others; 0: it need not
	Slower         float64       // how much slower than the others it may be: 0.5 is half as long again

	// Run runs the command of an instance. Its context ends when the command must.
	Run func(ctx context.Context, command []string) error
	// CheckTime returns how long the checks of an instance may take to notice a failure.
	CheckTime func(ctx context.Context, p admin.Peer) (time.Duration, error)
	// Report tells what has happened. It is called by one goroutine at a time.
	Report func(Event)
	// Save keeps the progress.
	Save func(ctx context.Context, p Progress) error
}

// Event is a step of a roll.
type Event struct {
	Time     time.Time `json:"time"`
	Step     Step      `json:"step"`
	Instance *Instance `json:"instance,omitempty"` // nil: the whole roll
	Text     string    `json:"text"`
}

// Step is the kind of an Event.
type Step string

const (
	Planned  Step = "planned"
	Skipped  Step = "skipped"  // it was done before an interruption
	Drained  Step = "drained"  // nothing is in flight
	Ran      Step = "ran"      // the command has ended with status 0
	Returned Step = "returned" // Consul has it passing, for long enough
	Judged   Step = "judged"   // it is in use, and as good as the others
	Stopped  Step = "stopped"  // the roll ends here
	Enabled  Step = "enabled"  // the drain of the instance at which the roll has stopped has ended
	Kept     Step = "kept"     // that drain stays
	Finished Step = "finished" // all instances are done
)

// Instance is an instance of a registry.
type Instance struct {
	ID         string `json:"id"`
	Node       string `json:"node"`
	Datacenter string `json:"datacenter,omitempty"`
	Address    string `json:"address"` // "host:port"
}

// Progress is how far a roll is.
type Progress struct {
	Done    []Instance `json:"done"`
	Present []Instance `json:"present"` // those that the roll may have drained
}

// InstanceOf returns the instance of a peer.
func InstanceOf(p admin.Peer) Instance { return Instance{p.ID, p.Node, p.Datacenter, p.Address} }

// String returns i for people.
func (i Instance) String() string {
	if i.Node == "" {
		return i.ID + " (" + i.Address + ")"
	}
	return i.ID + " (" + i.Node + ", " + i.Address + ")"
}

// interval is the time between two questions to sluice.
const interval = 200 * time.Millisecond

// undoTimeout bounds the end of a drain after the roll has stopped.
const undoTimeout = 15 * time.Second

// rolling is a roll that runs.
type rolling struct {
	Options
	sluice Sluice
	ours   []Instance // see Plan

	mu       sync.Mutex // guards the fields below, and calls of Report and Save
	progress Progress
	claimed  map[Instance]Instance // new instances, with the drained one that each stands for
}

// Run rolls the instances of a plan. ctx ends the roll between two steps: a command that runs is
// waited for, until stop ends too. It returns why the roll has stopped, once drains have ended.
func Run(ctx, stop context.Context, s Sluice, o Options, p Plan) error {
	r := &rolling{Options: o, sluice: s, ours: p.Ours, progress: Progress{Done: p.Done}, claimed: make(map[Instance]Instance)}
	for _, i := range p.Skipped {
		r.report(Skipped, &i, "done before the interruption")
	}
	for _, batch := range p.Batches {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := r.batch(ctx, stop, batch); err != nil {
			return err
		}
	}
	r.report(Finished, nil, fmt.Sprintf("%d instances", len(r.progress.Done)))
	return nil
}

// batch rolls some instances beside each other. If one is not good, the others are finished.
func (r *rolling) batch(ctx, stop context.Context, batch []admin.Peer) error {
	if err := r.ready(ctx, batch); err != nil {
		return err
	}
	if err := r.begin(ctx, batch); err != nil {
		return err
	}
	failed := make([]error, len(batch))
	var instances sync.WaitGroup
	for n, p := range batch {
		instances.Go(func() {
			failed[n] = panics.Err
			defer panics.Contain(panics.Task, nil)
			s := &step{rolling: r, batch: batch, peer: p, drained: p.Drained() && !slices.Contains(r.ours, InstanceOf(p))}
			failed[n] = s.roll(ctx, stop)
		})
	}
	instances.Wait()
	return errors.Join(failed...)
}

// ready waits until sluice knows the instances, the replicas agree, and others than the batch get
// requests.
func (r *rolling) ready(ctx context.Context, batch []admin.Peer) error {
	deadline := time.Now().Add(r.ReturnTimeout)
	return wake.Repeat(ctx, interval, func() (bool, error) {
		why, err := r.sluice.Disagreement(ctx)
		if err != nil || why != "" {
			return false, r.late(deadline, err, "the replicas do not agree: "+why)
		}
		if why, err = r.sluice.Stale(ctx); err != nil || why != "" {
			return false, r.late(deadline, err, why)
		}
		peers, err := r.sluice.Peers(ctx)
		if err != nil {
			return false, r.late(deadline, err, "")
		}
		if empties(peers, batch) && !r.Force {
			return false, r.late(deadline, errNobodyLeft, "")
		}
		return true, nil
	})
}

var errNobodyLeft = errors.New("no other instance of the service gets requests: --force rolls all the same")

// late returns err, or an error with text, once the deadline is over. Until then it may get better.
func (r *rolling) late(deadline time.Time, err error, text string) error {
	switch {
	case time.Now().Before(deadline):
		return nil
	case err != nil:
		return err
	}
	return errors.New(text)
}

func (r *rolling) report(step Step, about *Instance, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Report(Event{time.Now(), step, about, text})
}

// begin records that a batch is about to be drained.
func (r *rolling) begin(ctx context.Context, batch []admin.Peer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Present = nil
	for _, p := range batch {
		r.progress.Present = append(r.progress.Present, InstanceOf(p))
	}
	return r.Save(ctx, r.progress)
}

// finish records that an instance is done.
func (r *rolling) finish(ctx context.Context, i Instance) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.progress.Done = append(r.progress.Done, i)
	return r.Save(ctx, r.progress)
}
