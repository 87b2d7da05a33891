package kv

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/discovery"
)

// Options select the instances of a service.
type Options struct {
	Key string
	// Wait is how long a query blocks without a change, from 1 s to 10 min.
	Wait time.Duration
	// Probation is the maximum time on probation; see discovery.Guard. 0: no probation.
	Probation time.Duration
}

// NewSource returns a source for a service of sluice. It may run several times, but not
// concurrently.
func NewSource(service string, o Options, client *consul.Client, log zerolog.Logger) discovery.Source {
	return &source{service: service, options: o, client: client, log: log}
}

// Read returns the instances that a key has now.
func Read(ctx context.Context, client *consul.Client, service, key string) ([]discovery.Instance, consul.Answer, error) {
	pair, answer, err := client.KV().Get(ctx, key, 0, 0)
	if err != nil || pair == nil {
		return nil, answer, err
	}
	set, err := discovery.ParseValues(service, pair.Value)
	if err != nil {
		err = fmt.Errorf("key %s: %w", key, err)
	}
	return set, answer, err
}

type source struct {
	service string
	options Options
	client  *consul.Client
	log     zerolog.Logger
}

// String describes the key.
func (s *source) String() string { return fmt.Sprintf("consul key %q", s.options.Key) }

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	w := &watch{source: s, set: before.Set, Watcher: discovery.NewWatcher(discovery.Guard{Probation: s.options.Probation}, before, report)}
	return s.client.Follow(ctx, consul.FollowOptions{
		Query:       consul.OneKey(s.options.Key),
		BeforeQuery: w.begin,
		Read:        func(a consul.Answer, body []byte) error { return w.read(ctx, a, body) },
		Ended:       w.ended,
	})
}

// watch is one run of a source. Only its goroutine uses it.
type watch struct {
	*source
	*discovery.Watcher

	asking bool // the last query has no result yet: it has failed, if another one begins

	// The last answer.

	answer consul.Answer
	forgot bool                 // what is missing may be lost, whatever the index is
	set    []discovery.Instance // normalised; until one can be used, of the run before
	fault  error                // why the value cannot be used; nil: it can
}

// begin returns how long the next query may block.
func (w *watch) begin(context.Context) (time.Duration, error) {
	now := time.Now()
	if w.asking {
		w.Guard.Failed(now)
	}
	w.asking = true
	if w.fault != nil { // the end of a probation changes nothing before the value can be used
		return w.options.Wait, nil
	}
	return w.Guard.Within(now, w.options.Wait), nil
}

// read reads an answer. ended reports it.
func (w *watch) read(ctx context.Context, a consul.Answer, body []byte) error {
	set, err := w.decode(a, body)
	if err != nil {
		return err
	}
	w.forgot = a.Forgot && len(w.Guard.Absent(set)) > 0
	if w.fault == nil && len(w.Guard.Absent(set)) > 0 {
		if a, body, err = w.client.Confirm(ctx, consul.OneKey(w.options.Key)); err == nil {
			set, err = w.decode(a, body)
		}
		if err != nil {
			return fmt.Errorf("confirm the answer: %w", err)
		}
	}
	w.answer, w.set = a, set
	return nil
}

// decode returns the instances of an answer, and sets fault.
func (w *watch) decode(a consul.Answer, body []byte) ([]discovery.Instance, error) {
	keys, err := consul.DecodeKeys(a, body)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", w.options.Key, err)
	}
	before := w.fault
	w.fault = nil
	if len(keys) == 0 {
		return nil, nil
	}
	list, err := discovery.ParseValues(w.service, keys[0].Value)
	if err == nil {
		return discovery.Normalize(list), nil
	}
	w.fault = fmt.Errorf("key %s: the value cannot be used, the last usable one stays in use: %w", w.options.Key, err)
	if before == nil || before.Error() != w.fault.Error() {
		w.log.Warn().Str("service", w.service).Str("key", w.options.Key).Uint64("modify_index", keys[0].ModifyIndex).
			Err(err).Int("instances_in_use", len(w.set)).Msg("consul: a value cannot be used")
	}
	return w.set, nil
}

// ended reports the result of a query.
func (w *watch) ended(err error) {
	w.asking = false
	switch {
	case err != nil:
		w.Failed(discovery.Refusal(err, consul.Refused(err)))
	case w.fault != nil:
		w.Report(discovery.Report{Err: w.fault})
	default:
		// The confirmed answer tells whether Consul has lost its state, or a server only lags.
		index := w.answer.Index
		w.Accept(discovery.Report{Set: w.set, Endpoint: w.answer.URL, Index: index, Reset: index < w.Memory().Index || w.forgot}, discovery.Memory{Index: index})
	}
}
