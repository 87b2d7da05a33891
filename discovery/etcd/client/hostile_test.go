package client_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"sluice/discovery/etcd"
	"sluice/discovery/etcd/client"
	"sluice/test/hostile"
	"sluice/test/verify"
)

// hostileCluster has the keys /star/WORD.
type hostileCluster struct {
	mu       sync.Mutex // guards the fields below
	revision int64
	words    []string
	say      func(*clientv3.GetResponse) // nil: it behaves
	watches  []chan clientv3.WatchResponse
}

// set ends the watches, so that all keys are listed again.
func (c *hostileCluster) set(words string, say func(*clientv3.GetResponse)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision++
	if c.say = say; words != "" {
		c.words = strings.Fields(words)
	}
	for _, w := range c.watches {
		close(w)
	}
	c.watches = nil
}

func (c *hostileCluster) Get(context.Context, string, ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &clientv3.GetResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: 1, Revision: c.revision}, Count: int64(len(c.words))}
	for _, word := range c.words {
		value := fmt.Sprintf("10.0.0.1:%d", hostile.Port(word))
		r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: []byte("/star/" + word), Value: []byte(value), CreateRevision: 1, ModRevision: 1})
	}
	if c.say != nil {
		c.say(r)
	}
	return r, nil
}

func (c *hostileCluster) Watch(context.Context, string, ...clientv3.OpOption) clientv3.WatchChan {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := make(chan clientv3.WatchResponse)
	c.watches = append(c.watches, w)
	return w
}

func (c *hostileCluster) AwaitConnected(ctx context.Context, _ bool) bool {
	<-ctx.Done()
	return false
}

func (c *hostileCluster) Close() error { return nil }

// Whatever poses as etcd, the last good set stays in use, and state or log tell why.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	hostile.Test(t, func(log zerolog.Logger) hostile.Registry[func(*clientv3.GetResponse)] {
		fake := &hostileCluster{revision: 10}
		o := client.Options{Endpoints: "http://fake"}
		return hostile.Registry[func(*clientv3.GetResponse)]{
			Source: verify.Result(etcd.NewSource("star", etcd.Options{Cluster: o, Prefix: "/star/"}, client.Fake(o, fake), log)).Must(t),
			Good:   func(words string) { fake.set(words, nil) },
			Say:    func(say func(*clientv3.GetResponse)) { fake.set("", say) },
			Close:  func() {},
		}
	}, hostileAnswers())
}

// hostileAnswers change the list of the keys below "/star/" that a cluster answers.
func hostileAnswers() []hostile.Case[func(*clientv3.GetResponse)] {
	return append(valuesInEtcd(), []hostile.Case[func(*clientv3.GetResponse)]{
		{Name: "no header", Reason: "no header", Answer: func(r *clientv3.GetResponse) { r.Header = nil }},
		{Name: "another key", Reason: "was not asked for", Answer: withKey("/elsewhere/and/longer")},
		{Name: "a short key", Reason: "was not asked for", Answer: withKey("/s")},
		{Name: "no key", Reason: "was not asked for", Answer: withKey("")},
		{Name: "no pair", Reason: "was not asked for", Answer: func(r *clientv3.GetResponse) { r.Kvs = append(r.Kvs, nil) }},
		{Name: "the prefix", Reason: "has no name after the prefix", Answer: withKey("/star/")},
		{Name: "a negative revision", Answer: func(r *clientv3.GetResponse) { r.Header.Revision = -1 << 63 }},
		{Name: "a negative count", Answer: func(r *clientv3.GetResponse) { r.Count = -1 }},
	}...)
}

func withKey(key string) func(*clientv3.GetResponse) {
	return func(r *clientv3.GetResponse) {
		r.Kvs = append(r.Kvs, &mvccpb.KeyValue{Key: []byte(key), Value: []byte("10.0.0.1:80"), ModRevision: 7})
	}
}

// valuesInEtcd are the hostile.Values of one instance.
func valuesInEtcd() (cases []hostile.Case[func(*clientv3.GetResponse)]) {
	for _, v := range hostile.Values() {
		switch v.Name {
		// One instance has one line.
		case "a million lines", "a line twice", "lists in each other", "a huge weight of a line":
			v.Reason = "want"
		}
		cases = append(cases, hostile.Case[func(*clientv3.GetResponse)]{Name: v.Name, Reason: v.Reason, Set: v.Set, Large: v.Large, Answer: func(r *clientv3.GetResponse) {
			r.Kvs[0].Value, r.Kvs[0].ModRevision = []byte(v.Answer), r.Header.Revision
		}})
	}
	return cases
}
