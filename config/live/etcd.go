package live

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/discovery"
	"sluice/discovery/etcd/client"
	"sluice/observe/wake"
)

// again is the time between attempts to use certificates that cannot be read.
const again = 5 * time.Second

// Etcd follows the keys in etcd that begin with a prefix: of documents, or of instances. Documents
// are read when they have not changed for a short time, as in ConsulKV. While there is an instance,
// or was one in its key, there is the document Spec.Instances: the instances themselves are the
// matter of the service.
//
// A key that is deleted while the source is followed is meant, also the last one: the events of a
// watch are committed, and lists are linearizable.
type Etcd struct {
	Clusters *client.Clusters
	Options  client.Options
	Spec     config.DynamicEtcd
	Before   config.Source // what the source, which it names, said before Run
	Log      zerolog.Logger
}

// Run implements Source.
func (e *Etcd) Run(ctx context.Context, report func(Report)) error {
	cluster, err := e.Clusters.Cluster(e.Options)
	for err != nil {
		report(Report{Err: err})
		if err := wake.Await(ctx, time.After(again)); err != nil {
			return err
		}
		cluster, err = e.Clusters.Cluster(e.Options)
	}
	t := &tree{Etcd: e, report: report}
	return cluster.Follow(ctx, client.FollowOptions{
		Range: client.Range{Prefix: e.Spec.Keys()}, Read: t.read, After: positionOf(e.Before),
		Failed: func(err error) {
			t.failing = true
			report(Report{Err: err})
		},
	})
}

// positionOf returns how far a source was followed.
func positionOf(s config.Source) (p client.Position) {
	cluster, err := strconv.ParseUint(s.Origin, 16, 64)
	revision, err2 := strconv.ParseInt(s.Revision, 10, 64)
	if err != nil || err2 != nil {
		return p
	}
	return client.Position{Cluster: cluster, Revision: revision}
}

// tree is one run of Etcd. Only its goroutine uses it.
type tree struct {
	*Etcd
	report func(Report)

	instances map[string]bool // keys of instances: whether there was a usable value

	known    bool
	forgot   bool          // the cluster has lost its state since the last report
	said     config.Source // the last report
	failing  bool          // an error was reported since
	problem  string        // why no instance is usable, as last reported
	changing time.Time     // since when the documents differ from said; zero: they do not
	last     config.Source // of the last view
	moved    time.Time     // when last last changed
}

// read reports a view, now or after a short time.
func (t *tree) read(v client.View) (next time.Duration) {
	now := time.Now()
	t.forgot = t.forgot || v.Forgot
	said, problem := t.documents(v)
	if !slices.Equal(said.Documents, t.last.Documents) {
		t.last, t.moved = said, now
	}
	switch {
	case !t.known || t.failing || t.hasInstances(said) != t.hasInstances(t.said):
	case slices.Equal(said.Documents, t.said.Documents):
		t.changing, t.forgot = time.Time{}, false
		if problem != t.problem || said.Origin != t.said.Origin { // else a new process takes the cluster for another one
			t.said = said
			t.reportWith(Report{Said: said, Deleted: true}, problem)
		}
		return 0
	default:
		if t.changing.IsZero() {
			t.changing = t.moved
		}
		if wait := min(settleTime-now.Sub(t.moved), settleTimeMax-now.Sub(t.changing)); wait > 0 {
			return wait
		}
	}
	r := Report{Said: said, Forgot: t.forgot, Deleted: t.known && !t.forgot}
	t.known, t.forgot, t.failing, t.said, t.changing = true, false, false, said, time.Time{}
	t.reportWith(r, problem)
	return 0
}

// reportWith reports r, and why no instance is usable; "": one is, or there is none.
func (t *tree) reportWith(r Report, problem string) {
	if t.problem = problem; problem != "" {
		r.Unusable = errors.New(problem)
	}
	t.report(r)
}

// hasInstances reports whether s has the document of the instances.
func (t *tree) hasInstances(s config.Source) bool {
	return hasDocument(s, t.Spec.Instances().Name)
}

// documents returns what the entries say. problem is why none of the instances is usable; "" if
// there is one, or there is none at all.
func (t *tree) documents(v client.View) (said config.Source, problem string) {
	said = config.Source{
		Name: t.Before.Name, Kind: config.KindEtcd, Revision: strconv.FormatInt(v.Revision, 10), Origin: strconv.FormatUint(v.Cluster, 16),
	}
	instances, usable := make(map[string]bool), false
	for _, key := range slices.Sorted(maps.Keys(v.Entries)) {
		rest, value := key[len(t.Spec.Keys()):], v.Entries[key].Value
		if rest == "" && len(value) == 0 {
			continue // a directory, as some programs make them
		}
		if t.Spec.Documents != "" {
			said.Documents = append(said.Documents, config.TreeDocument(config.KindEtcd, key, rest, string(value)))
			continue
		}
		// At the start an earlier process may have seen a usable value.
		was, seen := t.instances[key]
		was = was || !t.known && !seen && t.hasInstances(t.Before)
		_, err := discovery.ParseValue(t.Spec.Service, rest, value)
		if err != nil && config.IsDocument(rest) {
			was, err = false, errNoDocument
		}
		if err != nil && !was {
			problem = fmt.Sprintf("etcd:%s: %v", key, err)
			if !seen {
				t.Log.Warn().Str("source", t.Before.Name).Str("etcd_key", key).Err(err).Msg("etcd: a value cannot be used")
			}
		}
		instances[key] = err == nil || was
		usable = usable || instances[key]
	}
	t.instances = instances
	if usable {
		said.Documents = append(said.Documents, t.Spec.Instances())
		return said, ""
	}
	return said, problem
}

// errNoDocument is of a document where earlier versions of sluice read it.
var errNoDocument = errors.New("a document has no effect below a prefix of instances: want it below a prefix of its own, which dynamic[].etcd.documents names")
