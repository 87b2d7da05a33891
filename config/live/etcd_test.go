package live

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/config/units"
	"sluice/discovery"
	"sluice/discovery/etcd/client"
	"sluice/observe/events"
	"sluice/test/verify"
)

// etcdTree reads views in virtual time.
type etcdTree struct {
	*tree
	begin    time.Time
	entries  map[string]client.Entry
	revision int64
	last     Report
	reports  []string // "2s a.yaml instances", or "2s: error"
	log      bytes.Buffer
}

// etcdInstances returns a tree of instances, etcdDocuments one of documents.
func etcdInstances() *etcdTree {
	return newEtcdTree(config.DynamicEtcd{Prefix: "/test/", Service: "test"})
}
func etcdDocuments() *etcdTree { return newEtcdTree(config.DynamicEtcd{Documents: "/test/"}) }

func newEtcdTree(spec config.DynamicEtcd) *etcdTree {
	e := &etcdTree{begin: time.Now(), entries: make(map[string]client.Entry)}
	spec.Endpoints = []config.Location{units.NewLocation("http://127.0.0.1:2379")}
	e.tree = &tree{Etcd: &Etcd{Spec: spec, Log: zerolog.New(&e.log)}, report: func(r Report) {
		line := fmt.Sprint(time.Since(e.begin))
		if r.Forgot {
			line += " forgot"
		}
		e.last = r
		if r.Unusable != nil {
			line += ": " + r.Unusable.Error()
		}
		for _, d := range r.Said.Documents {
			name := strings.TrimPrefix(d.Name, "etcd:/test/")
			if name == "" {
				name = "instances"
			}
			line += " " + name
		}
		e.reports = append(e.reports, line)
	}}
	return e
}

// set puts keys with values, and deletes those with an empty value; it returns the view.
func (e *etcdTree) set(pairs ...string) client.View {
	for i := 0; i < len(pairs); i += 2 {
		e.revision++
		if pairs[i+1] == "" {
			delete(e.entries, "/test/"+pairs[i])
		} else {
			e.entries["/test/"+pairs[i]] = client.Entry{Value: []byte(pairs[i+1]), Modified: e.revision}
		}
	}
	return client.View{Entries: e.entries, Revision: e.revision}
}

// settle reads the view again as often as it wants to be.
func (e *etcdTree) settle(next time.Duration) {
	for next > 0 {
		time.Sleep(next)
		next = e.read(e.set())
	}
}

func (e *etcdTree) expect(t *testing.T, want ...string) {
	t.Helper()
	verify.That(t, fmt.Sprintf("%q", e.reports) == fmt.Sprintf("%q", want), "got  %q\nwant %q", e.reports, want)
	e.reports = nil
}

const peer = `{"host":"127.0.0.1","port":6699}`

// The first and the last instance count at once, and a change of instances is none of the
// documents.
func TestInstancesInEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := etcdInstances()
		e.settle(e.read(e.set()))
		e.expect(t, "0s")
		time.Sleep(time.Second)
		e.settle(e.read(e.set("node", peer)))
		e.expect(t, "1s instances")
		e.settle(e.read(e.set("node", "nonsense", "b", peer)))
		e.settle(e.read(e.set("b", "")))
		e.expect(t) // the last good value of node stays
		e.settle(e.read(e.set("node", "")))
		e.expect(t, "1s")
	})
}

// A first value that cannot be used is an error, once, until a usable one comes.
func TestUnusableInstanceInEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := etcdInstances()
		e.read(e.set("node", "nonsense"))
		e.read(e.set())
		problem := `: etcd:/test/node: "nonsense": want {"host": "HOST", "port": PORT}, HOST:PORT or HOST_PORT`
		e.expect(t, "0s"+problem)
		e.read(e.set("node", ""))
		e.expect(t, "0s") // the error is over
		e.read(e.set("node", "nonsense"))
		e.expect(t, "0s"+problem)
		e.read(e.set("node", peer))
		e.expect(t, "0s instances")
	})
}

// The value was usable for an earlier process.
func TestUnusableInstanceAtAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := etcdInstances()
		e.Before = config.Source{Documents: []config.Document{{Name: "etcd:/test/"}}}
		e.read(e.set("node", "nonsense"))
		e.expect(t, "0s instances")
	})
}

// Documents that are written one by one are read together.
func TestDocumentsInEtcdSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := etcdDocuments()
		e.read(e.set("a.yaml", "{}"))
		e.expect(t, "0s a.yaml")
		e.read(e.set("b.yaml", "{}"))
		time.Sleep(100 * time.Millisecond)
		next := e.read(e.set("c.yaml", "{}"))
		e.expect(t)
		e.settle(next)
		e.expect(t, "300ms a.yaml b.yaml c.yaml")
		// A change that is taken back is none.
		e.read(e.set("a.yaml", ""))
		e.settle(e.read(e.set("a.yaml", "{}")))
		e.expect(t)
		// Who never stops does not delay for ever.
		for i := range 30 {
			e.read(e.set("a.yaml", fmt.Sprint(i)))
			time.Sleep(100 * time.Millisecond)
		}
		n := len(e.reports)
		verify.That(t, n == 1 && strings.HasPrefix(e.reports[0], "2.3s "), "%q", e.reports)
	})
}

// A report tells whether the cluster has lost its state, and whether what is missing was deleted.
func TestForgottenKeysInEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := etcdDocuments()
		e.settle(e.read(e.set("a.yaml", "{}", "services/s", "h:1")))
		e.expect(t, "0s a.yaml services/s")
		e.set("a.yaml", "", "services/s", "")
		v := e.set()
		v.Forgot = true
		e.settle(e.read(v))
		e.expect(t, "200ms forgot")
		e.settle(e.read(e.set("a.yaml", "{ }")))
		e.expect(t, "400ms a.yaml")
		verify.That(t, e.last.Deleted, "what is missing was not deleted")

		v = e.set("a.yaml", "")
		v.Forgot = true
		e.settle(e.read(v))
		e.expect(t, "600ms forgot")
		next := etcdDocuments()
		next.settle(next.read(next.set()))
		next.expect(t, "0s")
		verify.That(t, !next.last.Deleted, "what was deleted before Run is known")
	})
}

// What is followed later begins in the cluster that was followed last, also if that had the same
// documents as another one before it.
func TestSameDocumentsInAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := etcdDocuments()
		v := e.set("a.yaml", "{}")
		v.Cluster, v.Revision = 1, 100
		e.settle(e.read(v))
		v.Cluster, v.Revision, v.Forgot = 2, 7, true
		e.settle(e.read(v))
		e.expect(t, "0s a.yaml", "0s a.yaml")
		verify.Equal(t, positionOf(e.last.Said), client.Position{Cluster: 2, Revision: 7}, "position")
		v.Revision, v.Forgot = 8, false
		e.settle(e.read(v))
		e.expect(t)
	})
}

// Who may write an instance writes no document: below a prefix of instances each key is one,
// whatever its name, also after a restart of an earlier version that knew documents there. Whoever
// has written documents is told where they belong.
func TestNoDocumentBesideInstancesInEtcd(t *testing.T) {
	const document = "routes: [{ host: shop.example.com, path: /login, service: test }]"
	synctest.Test(t, func(t *testing.T) {
		for _, key := range []string{"one.yaml", "one.yml", "one.json", "services/shop", "a/b.yaml"} {
			e := etcdInstances()
			e.Before = config.Source{Documents: []config.Document{{Name: "etcd:/test/" + key, Text: document}}}
			e.settle(e.read(e.set(key, document)))
			verify.That(t, len(e.last.Said.Documents) == 0 && e.last.Unusable != nil, "%s: said %+v, %v", key, e.last.Said.Documents, e.last.Unusable)
			verify.Contains(t, e.log.String(), "dynamic[].etcd.documents", "%s", key)
			e.settle(e.read(e.set("node", peer)))
			verify.DeepEqual(t, e.last.Said.Documents, []config.Document{e.Spec.Instances()}, "%s", key)
		}
		e := etcdInstances()
		e.settle(e.read(e.set("one.json", peer)))
		e.expect(t, "0s instances")
	})
}

// While no instance can be used, what etcd has lost expires all the same, and the source works
// again when both are over.
func TestUnusableInstancesAndLostDocuments(t *testing.T) {
	managing(t, func(t *testing.T, m *managed) {
		said := config.Source{Name: treeName, Kind: config.KindConsulKV}
		with := said
		with.Documents = []config.Document{{Name: "consul_kv:sluice/a.yaml", Text: "routes: [{ path: /a, service: s }]"}}
		works := func() (n int) {
			for _, event := range m.options.Events.All() {
				if event.Kind == events.KindSourceWorks {
					n++
				}
			}
			return n
		}
		report := func(when string, r Report, state string, events int, want ...string) {
			t.Helper()
			m.source <- r
			synctest.Wait()
			m.serves(when, want...)
			verify.Equal(t, m.state(), state, "%s: the tree", when)
			verify.Equal(t, works(), events, "%s: times that the source works again", when)
		}
		unusable := errors.New("nonsense")
		report("usable", Report{Said: with}, "in use", 0, "/file", "/a")
		report("lost, and another value is unusable", Report{Said: said, Forgot: true, Unusable: unusable}, "stale", 0, "/file", "/a")
		pass(discovery.Stay + time.Second)
		m.serves("long ago", "/file")
		verify.Equal(t, works(), 1, "times that the source works again: nothing is lost any more")
		report("the value is gone", Report{Said: said, Deleted: true}, "in use", 2, "/file")
	})
}
