package etcd

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"sluice/discovery"
	"sluice/discovery/etcd/client"
)

// Options select the instances of a service.
type Options struct {
	Cluster client.Options
	// Prefix is the start of the keys of the instances, the rest of a key is the id of the
	// instance. Key, in place of it, is the only key; the id is what follows its last slash.
	Prefix, Key string

	// Probation is the maximum time on probation; see discovery.Guard. 0: no probation.
	Probation time.Duration
}

// NewSource returns a source for a service of sluice. It reads the files of certificates.
func NewSource(service string, o Options, clusters *client.Clusters, log zerolog.Logger) (discovery.Source, error) {
	cluster, err := clusters.Cluster(o.Cluster)
	if err != nil {
		return nil, err
	}
	return &source{service: service, options: o, cluster: cluster, log: log}, nil
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

// Addresses implements discovery.Addressed.
func (s *source) Addresses() string { return s.options.Cluster.Endpoints }

func (s *source) keys() client.Range {
	return client.Range{Prefix: s.options.Prefix, Key: s.options.Key}
}

// Run implements discovery.Source.
func (s *source) Run(ctx context.Context, before discovery.WatchState, report func(discovery.Report)) error {
	w := &watch{source: s, Watcher: discovery.NewWatcher(discovery.Guard{Probation: s.options.Probation}, before, report), before: before.Set}
	memory, after := w.Memory(), client.Position{}
	// An earlier version has saved no Registry.
	if id, err := strconv.ParseUint(memory.Registry, 16, 64); err == nil {
		after = client.Position{Cluster: id, Revision: int64(memory.Index)}
	}
	return s.cluster.Follow(ctx, client.FollowOptions{Range: s.keys(), After: after, Read: w.read, Failed: func(err error) {
		w.Failed(discovery.Refusal(err, client.Refused(err)))
	}})
}

// watch is one run of a source. Only its goroutine uses it.
type watch struct {
	*source
	*discovery.Watcher
	before []discovery.Instance // in use before the first view
	values map[string]value     // nil: there was no view
}

// value is a key as it was last read.
type value struct {
	modified int64              // the revision of what was read
	instance discovery.Instance // of the last usable value
	usable   bool               // there was one
	fault    string             // why the value is not usable; empty: it is
}

func (w *watch) read(v client.View) time.Duration {
	if w.values == nil {
		w.begin(v)
	}
	w.decode(v)
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
	w.Accept(discovery.Report{Set: discovery.Normalize(set), Endpoint: v.Member, Index: uint64(v.Revision), Invalid: invalid, Reset: v.Forgot},
		discovery.Memory{Index: uint64(v.Revision), Registry: strconv.FormatUint(v.Cluster, 16)})
	return w.Guard.Within(time.Now(), math.MaxInt64)
}

// begin makes instances in use the last usable values of their keys, but for those on probation.
func (w *watch) begin(v client.View) {
	w.values = make(map[string]value, len(v.Entries))
	before := make(map[string]discovery.Instance, len(w.before))
	for _, i := range w.before {
		if i.Probation.IsZero() {
			before[i.ID] = i
		}
	}
	for key := range v.Entries {
		if i, known := before[w.id(key)]; known {
			w.values[key] = value{instance: i, usable: true}
		}
	}
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
	// The state for a new process, the API and the metrics have it as a text.
	if !utf8.ValidString(id) {
		return discovery.Instance{}, errors.New("the key is not UTF-8")
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
