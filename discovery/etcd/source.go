package etcd

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/discovery/etcd/client"
)

// Options select the instances of a service.
type Options struct {
	Cluster client.Options
	// Prefix is the start of the keys of the instances, the rest of a key is the id of the
	// instance. Key, in place of it, is the only key; the id is what follows its last
	// slash.
	Prefix, Key string

	// Probation is the maximum time on probation; see discovery.Guard. 0: no probation.
	Probation time.Duration
}

// Sources creates sources. It is safe for concurrent use.
type Sources struct {
	clusters *client.Clusters
	log      zerolog.Logger
}

func NewSources(clusters *client.Clusters, log zerolog.Logger) *Sources {
	return &Sources{clusters, log}
}

// Source returns a source for a service of sluice. It reads the files of certificates.
func (s *Sources) Source(service string, o Options) (discovery.Source, error) {
	cluster, err := s.clusters.Cluster(o.Cluster)
	if err != nil {
		return nil, err
	}
	return &source{service: service, options: o, cluster: cluster, log: s.log}, nil
}

type source struct {
	service string
	options Options
	cluster *client.Cluster
	log     zerolog.Logger
}

// String describes the keys. Sources with the same keys have the same description, also with
// other endpoints.
func (s *source) String() string { return "etcd " + s.keys().String() }

func (s *source) keys() client.Range {
	return client.Range{Prefix: s.options.Prefix, Key: s.options.Key}
}

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, report func(discovery.Report) discovery.WatchState) error {
	w := &watch{source: s, report: report, guard: discovery.Guard{Probation: s.options.Probation}}
	return s.cluster.Follow(ctx, client.FollowOptions{Range: s.keys(), Read: w.read, Failed: w.failed})
}

// watch is one run of a source. Only its goroutine uses it.
type watch struct {
	*source
	report func(discovery.Report) discovery.WatchState
	guard  discovery.Guard

	accepted bool   // a view was accepted
	last     int64  // the revision of the last view
	of       uint64 // the id of the cluster that it is of; 0: there was none
	values   map[string]value
}

// value is a key as it was last read.
type value struct {
	modified int64              // the revision of what was read
	instance discovery.Instance // of the last usable value
	usable   bool               // there was one
	fault    string             // why the value is not usable; empty: it is
}

// read reports a view.
func (w *watch) read(v client.View) time.Duration {
	if !w.accepted {
		w.inherit(v)
		v.Forgot = v.Forgot || w.of != 0 && (v.Cluster != w.of || v.Revision < w.last)
	}
	w.decode(v)
	w.of, w.last = v.Cluster, v.Revision
	set := make([]discovery.Instance, 0, len(w.values))
	var invalid []discovery.Invalid
	for _, key := range slices.Sorted(maps.Keys(w.values)) {
		known := w.values[key]
		if known.usable {
			set = append(set, known.instance)
		}
		if known.fault != "" {
			invalid = append(invalid, discovery.Invalid{Key: key, Reason: known.fault, InUse: known.usable})
		}
	}
	now := time.Now()
	set = w.guard.Accept(now, discovery.Normalize(set), v.Forgot)
	w.report(discovery.Report{Set: set, Known: true, Endpoint: v.Member, Index: uint64(v.Revision), Memory: w.memory(), Invalid: invalid, Reset: v.Forgot})
	w.accepted = true
	if expiry, ok := w.guard.Expiry(); ok {
		return max(expiry.Sub(now), 10*time.Millisecond)
	}
	return 0
}

// inherit gives the guard the set in use before the first view: of another source with the same
// keys, or a saved one. If the view has no usable instance, the report is doubtful, so that a
// saved set is loaded.
func (w *watch) inherit(v client.View) {
	usable := func(key string) bool {
		i, err := w.parse(key, v.Entries[key].Value)
		return err == nil && i.Serving()
	}
	doubtful := !slices.ContainsFunc(slices.Collect(maps.Keys(v.Entries)), usable)
	state := w.report(discovery.Report{Doubtful: doubtful, Memory: []discovery.Memory{{Index: uint64(v.Revision), Registry: strconv.FormatUint(v.Cluster, 16)}}})
	known := state.Set
	if state.Known {
		memory := state.PartOf("")
		w.guard.Inherit(known, memory.Guard)
		w.last = int64(memory.Index)
		w.of, _ = strconv.ParseUint(memory.Registry, 16, 64) // of an earlier version: empty
	}
	w.values = make(map[string]value, len(v.Entries))
	for key := range v.Entries {
		for _, i := range known {
			if i.ID == w.id(key) {
				i.Probation = time.Time{}
				w.values[key] = value{instance: i, usable: true}
			}
		}
	}
}

// memory returns what w knows beside its set; nil before the first view.
func (w *watch) memory() []discovery.Memory {
	if w.of == 0 {
		return nil
	}
	return []discovery.Memory{{Index: uint64(w.last), Registry: strconv.FormatUint(w.of, 16), Guard: w.guard.Memory()}}
}

// decode reads the values that have changed.
func (w *watch) decode(v client.View) {
	maps.DeleteFunc(w.values, func(key string, _ value) bool {
		_, there := v.Entries[key]
		return !there
	})
	for key, entry := range v.Entries {
		known := w.values[key]
		if known.modified == entry.Modified && !v.Forgot {
			continue
		}
		known.modified = entry.Modified
		i, err := w.parse(key, entry.Value)
		if err == nil {
			known.instance, known.usable, known.fault = i, true, ""
		} else {
			known.fault = err.Error()
			w.log.Warn().Str("service", w.service).Str("etcd_key", key).Err(err).
				Bool("last_value_in_use", known.usable).Msg("etcd: a value cannot be used")
		}
		w.values[key] = known
	}
}

func (w *watch) parse(key string, text []byte) (discovery.Instance, error) {
	id := w.id(key)
	if id == "" {
		return discovery.Instance{}, errors.New("the key has no name after the prefix")
	}
	return discovery.ParseValue(w.service, id, text)
}

// id returns the id of the instance of a key.
func (w *watch) id(key string) string {
	if w.options.Key != "" {
		return key[strings.LastIndexByte(key, '/')+1:]
	}
	return key[len(w.options.Prefix):]
}

// failed reports that the view may be out of date.
func (w *watch) failed(err error) {
	w.guard.Failed(time.Now())
	if client.Refused(err) {
		err = refusal{err}
	}
	w.report(discovery.Report{Err: err, Memory: w.memory()})
}

// refusal is an error that matches discovery.ErrRefused.
type refusal struct{ error }

// Unwrap is for errors.Is.
func (r refusal) Unwrap() error { return r.error }

// Is is for errors.Is.
func (r refusal) Is(target error) bool { return target == discovery.ErrRefused }
