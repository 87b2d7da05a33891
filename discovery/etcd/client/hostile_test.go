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
