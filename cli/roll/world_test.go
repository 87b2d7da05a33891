package roll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/admin"
	"sluice/operator"
)

// world is a sluice in memory with the instances star-1 to star-N on as many nodes.
type world struct {
	t     *testing.T
	mu    sync.Mutex // guards the fields below
	peers []admin.Peer
	rate  map[string]float64 // failures per request, by id
	left  map[string]int     // questions until nothing is in flight, by id
	why   string             // of a disagreement
	stale string             // why what sluice knows is old
	empty bool               // once no instance got requests
	steps []string           // STEP ID, in the order of their reports
	saved []Progress
}

func newWorld(t *testing.T, n int) *world {
	w := &world{t: t, rate: make(map[string]float64), left: make(map[string]int)}
	for i := 1; i <= n; i++ {
		w.peers = append(w.peers, peerOf(i))
	}
	return w
}

func peerOf(n int) admin.Peer {
	return admin.Peer{
		Service: "star", ID: fmt.Sprintf("star-%d", n), Node: fmt.Sprintf("node-%d", n), Address: fmt.Sprintf("10.0.0.%d:80", n),
		Meta: map[string]string{"zone": string(rune('a' + n%2))}, Status: "passing", State: "up", Used: true, LatencyMS: 10,
	}
}

// change changes a peer.
func (w *world) change(id string, f func(p *admin.Peer)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.peers {
		if w.peers[i].ID == id {
			f(&w.peers[i])
			w.peers[i].Used = w.peers[i].Status == "passing" && !w.peers[i].Drained()
		}
	}
	w.empty = w.empty || !slices.ContainsFunc(w.peers, func(p admin.Peer) bool { return p.Used })
}

func (w *world) locked(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// Peers also sends each peer in use 20 requests.
func (w *world) Peers(context.Context) ([]admin.Peer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.peers {
		if p := &w.peers[i]; p.Used {
			p.Requests += 20
			p.Failures = uint64(float64(p.Requests) * w.rate[p.ID])
		}
	}
	return slices.Clone(w.peers), nil
}

func (w *world) Drain(_ context.Context, p admin.Peer, why string, _ time.Duration) error {
	w.change(p.ID, func(p *admin.Peer) { p.Orders = []operator.Order{{Kind: operator.Drain, ID: p.ID, Why: why}} })
	return nil
}

func (w *world) Enable(ctx context.Context, p admin.Peer) error {
	w.change(p.ID, func(p *admin.Peer) { p.Orders = nil })
	return ctx.Err()
}

func (w *world) Busy(_ context.Context, p admin.Peer) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left[p.ID]--; w.left[p.ID] >= 0 {
		return "1 in flight", nil
	}
	return "", nil
}

func (w *world) Stale(context.Context) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stale, nil
}

func (w *world) Disagreement(context.Context) (string, error) { return w.why, nil }

// options returns options with a command that does run; nil: nothing.
func (w *world) options(run func(id string) error) Options {
	return Options{
		Service: "star", Command: []string{"deploy", "{id}"}, By: "ops@host", DrainTimeout: time.Minute, CommandTimeout: time.Minute,
		ReturnTimeout: time.Minute, Judge: 5 * time.Second, Slower: 0.5,
		Run: func(ctx context.Context, command []string) error {
			if run == nil {
				return nil
			}
			return run(command[1])
		},
		CheckTime: func(context.Context, admin.Peer) (time.Duration, error) { return 3 * time.Second, nil },
		Report: func(e Event) {
			if e.Instance != nil {
				w.steps = append(w.steps, string(e.Step)+" "+e.Instance.ID)
			}
		},
		Save: func(ctx context.Context, p Progress) error {
			w.saved = append(w.saved, Progress{slices.Clone(p.Done), slices.Clone(p.Present)})
			return ctx.Err()
		},
	}
}

// roll rolls the service; before is the progress of a roll that this one continues.
func (w *world) roll(ctx context.Context, o Options, before Progress) error {
	plan, err := NewPlan(o, w.peers, before)
	if err != nil {
		return err
	}
	return Run(ctx, context.Background(), w, o, plan)
}

// done returns the ids of the instances that are done.
func (w *world) done() (ids []string) {
	if len(w.saved) > 0 {
		for _, i := range w.saved[len(w.saved)-1].Done {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

// drained returns the ids of the instances that are drained.
func (w *world) drained() (ids []string) {
	for _, p := range w.peers {
		if p.Drained() {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

var errDeploy = errors.New("no such version")
