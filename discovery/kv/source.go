package kv

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

// Sources creates the sources that share a client of Consul. It is safe for concurrent use.
type Sources struct {
	client *consul.Client
	log    zerolog.Logger
}

// NewSources returns sources of client.
func NewSources(client *consul.Client, log zerolog.Logger) *Sources { return &Sources{client, log} }

// Source returns a source for a service of sluice. It may run several times, but not
// concurrently.
func (s *Sources) Source(service string, o Options) discovery.Source {
	return &source{Sources: s, service: service, options: o}
}

// Read returns the instances that a key has now.
func (s *Sources) Read(ctx context.Context, service, key string) ([]discovery.Instance, consul.Answer, error) {
	pair, answer, err := s.client.Key(ctx, key, 0, 0)
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
	*Sources
	service string
	options Options
}

// String describes the key.
func (s *source) String() string { return fmt.Sprintf("consul key %q", s.options.Key) }

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, report func(discovery.Report) discovery.WatchState) error {
	defer s.client.Join()()
	w := &watch{source: s, report: report, guard: discovery.Guard{Probation: s.options.Probation}}
	return s.client.Follow(ctx, consul.FollowOptions{
		Query:     consul.OneKey(s.options.Key),
		Begin:     w.begin,
		Read:      func(a consul.Answer, body []byte) error { return w.read(ctx, a, body) },
		Regressed: func() { w.forgot = w.answer.Index < w.last }, // else a server only lags
		Ended:     w.ended,
	})
}

// watch is one run of a source. Only its goroutine uses it.
type watch struct {
	*source
	report func(discovery.Report) discovery.WatchState
	guard  discovery.Guard

	inherited bool // the guard has the instances of an earlier source
	asking    bool // the last query has no result yet: it has failed, if another one begins

	// The last answer.

	answer consul.Answer
	set    []discovery.Instance // normalised
	fault  error                // why the value cannot be used; nil: it can
	forgot bool                 // Consul has lost its state

	last uint64 // index of the last reported answer
}

// begin returns how long the next query may block.
func (w *watch) begin(context.Context) (time.Duration, error) {
	now := time.Now()
	if w.asking {
		w.guard.Failed(now)
	}
	w.asking = true
	if expiry, ok := w.guard.Expiry(); ok {
		return min(w.options.Wait, max(expiry.Sub(now), 10*time.Millisecond)), nil
	}
	return w.options.Wait, nil
}

// read reads an answer. ended reports it.
func (w *watch) read(ctx context.Context, a consul.Answer, body []byte) error {
	set, err := w.decode(a, body)
	if err != nil {
		return err
	}
	first := !w.inherited
	if first {
		w.inherit(a, set)
	}
	if w.fault == nil && len(w.guard.Absent(set)) > 0 {
		if a, set, err = w.confirm(ctx); err != nil {
			return fmt.Errorf("confirm the answer: %w", err)
		}
	}
	w.answer, w.set = a, set
	w.forgot = w.forgot || first && a.Index < w.last
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

// inherit gives the guard the set in use before the first answer: of another source with the same
// key, or a saved one. If there is no instance in service, the report is doubtful, so that a
// saved set is loaded: Consul may have lost its state.
func (w *watch) inherit(a consul.Answer, set []discovery.Instance) {
	w.inherited = true
	known := w.report(discovery.Report{Doubtful: discovery.CountServing(set) == 0, Memory: []discovery.Memory{{Index: a.Index}}})
	if !known.Known {
		return
	}
	memory := known.PartOf("")
	w.guard.Inherit(known.Set, memory.Guard)
	w.last = memory.Index
}

// memory returns what w knows beside its set; nil before the first answer.
func (w *watch) memory() []discovery.Memory {
	if !w.inherited {
		return nil
	}
	return []discovery.Memory{{Index: w.last, Guard: w.guard.Memory()}}
}

// confirm reads the key in the mode "consistent".
func (w *watch) confirm(ctx context.Context) (a consul.Answer, set []discovery.Instance, err error) {
	q := consul.OneKey(w.options.Key)
	q.RequireConsistent = true
	var body bytes.Buffer
	a, err = w.client.Get(ctx, q, func(r io.Reader) error {
		body.Reset()
		_, err := body.ReadFrom(r)
		return err
	})
	if err == nil {
		err = w.client.Doubt(a)
	}
	if err == nil {
		set, err = w.decode(a, body.Bytes())
	}
	return a, set, err
}

// ended reports the result of a query.
func (w *watch) ended(err error) {
	w.asking = false
	switch {
	case err != nil:
		w.guard.Failed(time.Now())
		if consul.Refused(err) {
			err = refusal{err}
		}
		w.report(discovery.Report{Err: err, Memory: w.memory()})
	case w.fault != nil:
		w.report(discovery.Report{Err: w.fault})
	default:
		set := w.guard.Accept(time.Now(), w.set, w.forgot)
		w.last = w.answer.Index
		w.report(discovery.Report{Set: set, Known: true, Endpoint: w.answer.URL, Index: w.answer.Index, Memory: w.memory(), Reset: w.forgot})
		w.forgot = false
	}
}

// refusal is an error that matches discovery.ErrRefused.
type refusal struct{ error }

// Unwrap is for errors.Is.
func (r refusal) Unwrap() error { return r.error }

// Is is for errors.Is.
func (r refusal) Is(target error) bool { return target == discovery.ErrRefused }
