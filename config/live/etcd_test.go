package live

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
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
}

func newEtcdTree() *etcdTree {
	e := &etcdTree{begin: time.Now(), entries: make(map[string]client.Entry)}
	e.tree = newTree(&Etcd{
		Spec: config.DynamicEtcd{
			EtcdCluster: config.EtcdCluster{Endpoints: []string{"http://127.0.0.1:2379"}}, Prefix: "/test/", Service: "test",
		}, Name: "etcd:/test/", Log: zerolog.Nop(),
	}, func(r Report) {
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
	})
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
		e := newEtcdTree()
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
		e := newEtcdTree()
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
		e := newEtcdTree()
		e.Before = config.Source{Documents: []config.Document{{Name: "etcd:/test/"}}}
		e.read(e.set("node", "nonsense"))
		e.expect(t, "0s instances")
	})
}

// Documents that are written one by one are read together.
func TestDocumentsInEtcdSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEtcdTree()
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
		e := newEtcdTree()
		e.settle(e.read(e.set("a.yaml", "{}", "node", peer)))
		e.expect(t, "0s a.yaml instances")
		e.set("a.yaml", "", "node", "")
		v := e.set()
		v.Forgot = true
		e.read(v)
		e.expect(t, "0s forgot")
		e.settle(e.read(e.set("a.yaml", "{ }")))
		e.expect(t, "200ms a.yaml")
		verify.That(t, e.last.Deleted, "what is missing was not deleted")

		v = e.set("a.yaml", "")
		v.Forgot = true
		e.settle(e.read(v))
		e.expect(t, "400ms forgot")
		next := newEtcdTree()
		next.settle(next.read(next.set()))
		next.expect(t, "0s")
		verify.That(t, !next.last.Deleted, "what was deleted before Run is known")
	})
}

// What is followed later begins in the cluster that was followed last, also if that had the same documents as another one before it.
func TestSameDocumentsInAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEtcdTree()
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

// Values of instances that cannot be used say nothing about the documents: what etcd has lost expires, and nothing is
// told to be readable again that could be read all the time.
func TestUnusableInstanceBesideDocuments(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, dir)
		defer m.wait()
		e := newEtcdTree()
		e.Name, e.report = treeName, func(r Report) { m.source <- r; synctest.Wait() }
		document := func(path string) string { return fmt.Sprintf("routes: [{ path: %s, service: s }]", path) }
		e.settle(e.read(e.set("a.yaml", document("/a"), "node", "nonsense")))
		m.serves("an unusable instance", "/file", "/a")
		verify.Equal(t, m.state(), "stale", "the tree")
		e.settle(e.read(e.set("a.yaml", document("/b"))))
		m.serves("another document", "/file", "/b")
		v := e.set("a.yaml", "")
		v.Forgot = true
		e.settle(e.read(v))
		m.serves("etcd has lost it", "/file", "/b")
		time.Sleep(discovery.Stay + time.Second)
		synctest.Wait()
		m.serves("long ago", "/file")
		works := func() (n int) {
			for _, event := range m.options.Events.All() {
				if event.Kind == events.KindSourceWorks {
					n++
				}
			}
			return n
		}
		verify.Equal(t, works(), 1, "times that the source works again: nothing is lost any more")
		e.settle(e.read(e.set("node", "")))
		verify.Equal(t, works(), 2, "times that the source works again: the unusable value is gone")
		verify.Equal(t, m.state(), "in use", "the tree")
	})
}
