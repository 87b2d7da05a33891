package overview

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	"sluice/observe/panics"
	"sluice/test/verify"
)

// changesOf compares an answer with what l holds.
func changesOf(t *testing.T, l *entries, answer string) string {
	t.Helper()
	var got []string
	err := l.compareChecks([]byte(answer), func(o owner) { got = append(got, o.service+"@"+o.node) })
	verify.NoError(t, err)
	slices.Sort(got)
	return strings.Join(slices.Compact(got), " ")
}

func check(node, id, service string, modified int) string {
	return fmt.Sprintf(`{"Node":%q, "CheckID":%q, "Name":"x", "Output":"a \"quoted\" [text] {", "ServiceName":%q, "ServiceTags":["v1"], "Definition":{}, "CreateIndex":1, "ModifyIndex":%d}`,
		node, id, service, modified)
}

func answerOf(entries ...string) string { return "[" + strings.Join(entries, ",") + "]" }

func TestEntriesReportChanges(t *testing.T) {
	l := newEntries(new(atomic.Int64))
	star, moon, serf := check("n1", "a", "star", 5), check("n1", "b", "moon", 6), check("n2", "serfHealth", "", 7)
	steps := []struct{ name, answer, want string }{
		{"the first answer is all new", answerOf(star, moon, serf), "@n2 moon@n1 star@n1"},
		{"the same again", answerOf(star, moon, serf), ""},
		{"another order is no change", answerOf(serf, moon, star), ""},
		{"modified", answerOf(check("n1", "a", "star", 8), moon, serf), "star@n1"},
		{"a check of the node", answerOf(check("n1", "a", "star", 8), moon, check("n2", "serfHealth", "", 9)), "@n2"},
		{"gone and new", answerOf(moon, check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "star@n1 sun@n2"},
		{"the id of another service", answerOf(check("n1", "b", "mars", 11), check("n2", "c", "sun", 10), check("n2", "serfHealth", "", 9)), "mars@n1 moon@n1"},
		{"nothing left", "[]", "@n2 mars@n1 sun@n2"},
	}
	for _, s := range steps {
		verify.Equal(t, changesOf(t, l, s.answer), s.want, "%s", s.name)
	}
	verify.Equal(t, len(l.owners), 0, "entries are kept of an empty answer")
}

// Entries that an unreadable answer does not contain are not gone.
func TestEntriesIgnoreADamagedAnswer(t *testing.T) {
	l := newEntries(new(atomic.Int64))
	whole := answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6))
	changesOf(t, l, whole)
	damaged := []string{"null", "{}", `"x"`, `[{"Node":5}]`, "[1]", "[{},]", "[,{}]", "[{}{}]", "[{}] []", "[]]"}
	for n := range len(whole) - 1 {
		damaged = append(damaged, whole[:n])
	}
	for _, answer := range damaged {
		err := l.compareChecks([]byte(answer), func(o owner) { t.Errorf("%q: changed: %+v", answer, o) })
		verify.That(t, err != nil, "no error for %q", answer)
	}
	verify.Equal(t, changesOf(t, l, whole), "", "after damaged answers changed")
}

func TestEntriesOfANode(t *testing.T) {
	for _, tt := range []struct{ answer, want string }{
		{`{"Node":{"Node":"n1","ModifyIndex":3},"Services":[{"ID":"a","Service":"star","Port":1,"ModifyIndex":5},{"ID":"b","Service":"moon","ModifyIndex":6}]}`, "star moon"},
		{`{"Services":[{"ID":"a","Service":"star","ModifyIndex":5}] , "Node":{}} `, "star"},
		{`{"Node":null,"Services":null}`, ""},
		{`{"Services":[]`, "decode the answer"}, {`{"Services":[]}}`, "decode the answer"}, {`{"Services":[`, "decode the answer"}, {`[]`, "decode the answer"},
		{`{"Services":5}`, "decode the answer"}, {`{"Services":null}x`, "decode the answer"}, {`{"Services":[],"Node":{}`, "decode the answer"},
	} {
		var got []string
		if err := newEntries(new(atomic.Int64)).compareInstances([]byte(tt.answer), func(o owner) { got = append(got, o.service) }); err != nil {
			got = []string{strings.SplitN(err.Error(), ":", 2)[0]}
		}
		verify.Equal(t, strings.Join(got, " "), tt.want, "%s", tt.answer)
	}
}

// Who registers in Consul does not decide how much memory an overview has.
func TestListsAreBounded(t *testing.T) {
	var total atomic.Int64
	total.Store(maxEntries - 3)
	l, other := newEntries(&total), newEntries(&total)
	changesOf(t, l, answerOf(check("n1", "a", "star", 5), check("n1", "b", "moon", 6)))
	changesOf(t, l, answerOf(check("n1", "a", "star", 6), check("n1", "b", "moon", 6), check("n1", "b", "moon", 6), check("n1", "c", "moon", 7)))
	err := other.compareChecks([]byte(answerOf(check("n2", "a", "star", 5))), func(owner) {})
	verify.That(t, err != nil && strings.Contains(err.Error(), "more than 1000000 entries"), "one too many: %v", err)
	l.hold(nil)
	changesOf(t, other, answerOf(check("n2", "a", "star", 5), check("n2", "b", "star", 6), check("n2", "c", "star", 7)))

	nodes := make([]string, maxNodes+1)
	for n := range nodes {
		nodes[n] = fmt.Sprintf(`{"Node":"n%d"}`, n)
	}
	var all addresses
	verify.NoError(t, decode([]byte(answerOf(nodes[1:]...)), &all))
	err = decode([]byte(answerOf(nodes...)), &all)
	verify.That(t, err != nil && strings.Contains(err.Error(), "more than 50000 nodes"), "one node too many: %v", err)
}

func TestNodesWithoutAListAreLeftOut(t *testing.T) {
	var all addresses
	verify.NoError(t, decode([]byte(`[{"Node":".."},{"Node":"a/b"},{"Node":"a//b"},{"Node":"."},{"Node":"x/../y"},{"Node":"/"},{"Node":"%2e?#"}]`), &all))
	verify.Slices(t, slices.Sorted(maps.Keys(all)), []string{"%2e?#", "a/b"}, "nodes")
}

// A change of a proxy, or of its check, is one of the service behind it, whatever the proxy is
// called.
func TestChangesOfProxies(t *testing.T) {
	s := &Subscriber{news: make(chan struct{}, 1)}
	v := &overview{complete: true, subscribers: map[string]map[*Subscriber]bool{"web": {s: true}}, behind: make(map[string]map[string]bool)}
	instances, checks := newEntries(&v.total), newEntries(&v.total)
	instances.proxied = v.recordProxy
	news := func() bool {
		select {
		case <-s.news:
			return true
		default:
			return false
		}
	}
	verify.NoError(t, instances.compareInstances([]byte(`{"Services": [{"ID": "1", "Service": "other"}]}`), v.changed))
	verify.That(t, !news(), "another service is no news")
	verify.NoError(t, instances.compareInstances([]byte(`{"Services": [{"ID": "2", "Service": "Edge", "Proxy": {"DestinationServiceName": "Web"}}]}`), v.changed))
	verify.That(t, news(), "a new proxy is no news")
	verify.NoError(t, checks.compareChecks([]byte(`[{"Node": "n", "CheckID": "c", "ServiceName": "edge"}]`), v.changed))
	verify.That(t, news(), "a check of the proxy is no news")
	verify.NoError(t, instances.compareInstances([]byte(`{"Services": []}`), v.changed))
	verify.That(t, news(), "the end of the proxy is no news")
	verify.NoError(t, checks.compareChecks([]byte("[]"), v.changed))
	news()
	verify.NoError(t, checks.compareChecks([]byte(`[{"Node": "n", "CheckID": "d", "ServiceName": "Web-sidecar-proxy"}]`), v.changed))
	verify.That(t, news(), "a sidecar that comes before its instance is no news")
}

// subscribed calls test in a bubble of synctest with an overview of a Consul that does not answer.
func subscribed(t *testing.T, test func(t *testing.T, v *overview)) {
	synctest.Test(t, func(t *testing.T) {
		client, err := consul.New(consul.Options{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		verify.NoError(t, err)
		defer client.Close()
		s := New(client, zerolog.Nop()).Subscribe(Scope{}, "star", time.Minute)
		defer s.Leave()
		test(t, s.overview)
	})
}

// A panic of what follows the nodes is noticed at once, and the nodes are followed again.
func TestPanicOfAnOverview(t *testing.T) {
	panics.Fatal.Store(false)
	defer panics.Fatal.Store(true)
	defer panics.Observe(func(panics.Contained) {})()
	subscribed(t, func(t *testing.T, v *overview) {
		v.mu.Lock()
		v.nodes["bad"] = nil
		v.mu.Unlock()
		before := panics.Total(panics.Watch)
		v.poke.Send()
		synctest.Wait()
		verify.Equal(t, panics.Total(panics.Watch)-before, 1, "panics")
		v.mu.Lock()
		clear(v.nodes)
		v.addresses = addresses{"good": "10.0.0.1"}
		v.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		v.mu.Lock()
		defer v.mu.Unlock()
		verify.That(t, v.nodes["good"] != nil, "the nodes %v", v.nodes)
	})
}

func TestNodesThatComeGetTheSlotsOfThoseThatLeave(t *testing.T) {
	subscribed(t, func(t *testing.T, v *overview) {
		for _, name := range []string{"a", "b", "c"} {
			nodes := make(addresses)
			for n := range 200 {
				nodes[fmt.Sprint(name, n)] = "10.0.0.1"
			}
			v.useAddresses(nodes)
			v.poke.Send()
			synctest.Wait()
			slots := 0
			for _, n := range v.nodes {
				if n.slot {
					slots++
				}
			}
			verify.Equal(t, slots, v.slotsLocked(), "nodes %s… with a slot", name)
		}
	})
}
