package live

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// With allow_empty, an empty tree that the leader does not confirm at first is used as soon as it
// does.
func TestEmptyTreeIsConfirmedLater(t *testing.T) {
	t.Parallel()
	kv := discoverytest.NewKV()
	kv.Put("sluice/a.yaml", "{}")
	var questions atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("consistent") && questions.Add(1) == 1 {
			http.Error(w, "rpc error: No cluster leader", http.StatusInternalServerError)
			return
		}
		kv.ServeHTTP(w, r)
	}))
	defer server.Close()
	client := verify.Result(consul.New(consul.Options{Addresses: []string{server.URL}, Log: zerolog.Nop()})).Must(t)
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	reports, ended := make(chan Report), make(chan struct{})
	k := &ConsulKV{Client: client, DynamicConsulKV: config.DynamicConsulKV{Prefix: "sluice/", AllowEmpty: true}, Wait: func() time.Duration { return 10 * time.Minute }}
	go func() {
		defer close(ended)
		_ = k.Run(ctx, func(r Report) {
			select {
			case reports <- r:
			case <-ctx.Done():
			}
		})
	}()
	defer func() {
		cancel()
		<-ended
	}()
	r := <-reports
	verify.Require(t, len(r.Said.Documents) == 1, "%+v", r)
	kv.Put("sluice/a.yaml", "")
	for r := range reports {
		if r.Err == nil && len(r.Said.Documents) == 0 {
			break
		}
	}
	verify.That(t, questions.Load() >= 2, "the leader was asked %d times", questions.Load())
}

// An answer that is older than the last one, or has an old key that is new, is from a Consul that
// may have lost its state.
func TestForgetfulConsul(t *testing.T) {
	doc := func(name string) config.Document { return config.Document{Name: name, Text: name} }
	for name, test := range map[string]struct {
		index  uint64
		keys   map[string]uint64
		forgot bool
	}{
		"the same":                      {10, map[string]uint64{"a": 7, "b": 9}, false},
		"a change and a new key":        {12, map[string]uint64{"a": 11, "c": 12}, false},
		"a deletion":                    {11, map[string]uint64{"a": 7}, false},
		"the index goes backwards":      {9, map[string]uint64{"a": 7}, true},
		"an old key that was not there": {20, map[string]uint64{"c": 8}, true},
		"all is gone":                   {20, nil, true},
	} {
		before := config.Source{Revision: "10", Documents: []config.Document{doc("a"), doc("b")}}
		a := answer{said: config.Source{Revision: fmt.Sprint(test.index)}}
		for key, index := range test.keys {
			a.keys = append(a.keys, api.KVPair{Key: key, ModifyIndex: index})
			a.said.Documents = append(a.said.Documents, doc(key))
		}
		verify.Equal(t, mayHaveForgotten(before, a), test.forgot, "%s", name)
	}
}
