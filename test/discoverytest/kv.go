package discoverytest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// KV is a fake of Consul's KV store: lists of keys below a prefix that block, single keys,
// compare-and-set and transactions. It is an http.Handler, for virtual time. Its methods may be
// called concurrently.
type KV struct {
	mu      sync.Mutex // guards the fields below
	index   uint64
	pairs   map[string]api.KVPair
	deleted uint64        // the index of the last deletion
	changed chan struct{} // closed, and replaced, at each change
	early   chan struct{} // likewise by Restore
}

// NewKV returns one without keys.
func NewKV() *KV {
	return &KV{index: 10, pairs: make(map[string]api.KVPair), changed: make(chan struct{}), early: make(chan struct{})}
}

// Put writes a key, and with value "" deletes it.
func (k *KV) Put(key, value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if value == "" {
		k.deleteLocked(key)
	} else {
		k.setLocked(api.KVPair{Key: key, Value: []byte(value)})
	}
}

// Backup returns all keys, for Restore.
func (k *KV) Backup() map[string]api.KVPair {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.pairs)
}

// Restore does what "consul snapshot restore" does: see Consul.Restore.
func (k *KV) Restore(backup map[string]api.KVPair) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pairs, k.deleted = maps.Clone(backup), 0
	for _, p := range backup { // of a Consul that has begun anew since
		k.index = max(k.index, p.ModifyIndex)
	}
	close(k.early)
	k.early = make(chan struct{})
}

// Wipe begins anew, with a low index. Queries that block fail.
func (k *KV) Wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pairs, k.index, k.deleted = make(map[string]api.KVPair), 3, 0
	k.changedLocked()
}

func (k *KV) changedLocked() {
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *KV) setLocked(p api.KVPair) {
	k.index++
	p.ModifyIndex = k.index
	k.pairs[p.Key] = p
	k.changedLocked()
}

func (k *KV) deleteLocked(key string) {
	k.index++
	k.deleted = k.index
	delete(k.pairs, key)
	k.changedLocked()
}

// lookLocked returns the keys below a prefix, or one, and the index.
func (k *KV) lookLocked(key string, below bool) (list []api.KVPair, index uint64) {
	index = max(k.deleted, 1)
	for _, name := range slices.Sorted(maps.Keys(k.pairs)) {
		if name == key || below && strings.HasPrefix(name, key) {
			list, index = append(list, k.pairs[name]), max(index, k.pairs[name].ModifyIndex)
		}
	}
	return list, index
}

func (k *KV) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, isKey := strings.CutPrefix(r.URL.Path, "/v1/kv/")
	switch {
	case r.URL.Path == leaderPath:
		io.WriteString(w, `"127.0.0.1:8300"`)
	case r.URL.Path == "/v1/txn":
		k.transact(w, r)
	case !isKey:
		http.NotFound(w, r)
	case r.Method == http.MethodGet:
		k.get(w, r, key)
	default:
		value, _ := io.ReadAll(r.Body)
		cas, _ := strconv.ParseUint(r.URL.Query().Get("cas"), 10, 64)
		flags, _ := strconv.ParseUint(r.URL.Query().Get("flags"), 10, 64)
		verb := api.KVSet
		switch compares := r.URL.Query().Has("cas"); {
		case r.Method == http.MethodDelete && compares:
			verb = api.KVDeleteCAS
		case r.Method == http.MethodDelete:
			verb = api.KVDelete
		case compares:
			verb = api.KVCAS
		}
		fmt.Fprint(w, k.steps(&api.KVTxnOp{Verb: verb, Key: key, Value: value, Flags: flags, Index: cas}) < 0)
	}
}

func (k *KV) get(w http.ResponseWriter, r *http.Request, key string) {
	request := parse("", r)
	wait := time.NewTimer(request.Wait)
	defer wait.Stop()
	for blocks := request.Index > 0; ; {
		k.mu.Lock()
		list, index := k.lookLocked(key, r.URL.Query().Has("recurse"))
		changed, early := k.changed, k.early
		k.mu.Unlock()
		if blocks && index <= request.Index {
			select {
			case <-changed:
				continue
			case <-early:
			case <-wait.C:
				blocks = false
				continue
			case <-r.Context().Done():
				return
			}
			index = request.Index // what there was before
		}
		w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		if len(list) == 0 {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(list)
		return
	}
}

func (k *KV) transact(w http.ResponseWriter, r *http.Request) {
	var ops []struct {
		KV struct {
			Verb, Key, Value string
			Flags, Index     uint64
		}
	}
	_ = json.NewDecoder(r.Body).Decode(&ops)
	var steps []*api.KVTxnOp
	for _, o := range ops {
		value, _ := base64.StdEncoding.DecodeString(o.KV.Value)
		steps = append(steps, &api.KVTxnOp{Verb: api.KVOp(o.KV.Verb), Key: o.KV.Key, Value: value, Flags: o.KV.Flags, Index: o.KV.Index})
	}
	if failed := k.steps(steps...); failed >= 0 {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, `{"Results":[],"Errors":[{"OpIndex":%d,"What":"index is stale"}]}`, failed)
		return
	}
	io.WriteString(w, `{"Results":[],"Errors":[]}`)
}

// steps takes steps at one moment, and returns the one that is not possible; -1: all are.
func (k *KV) steps(steps ...*api.KVTxnOp) (failed int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n, s := range steps {
		if s.Verb != api.KVSet && s.Verb != api.KVDelete && k.pairs[s.Key].ModifyIndex != s.Index {
			return n
		}
	}
	for _, s := range steps {
		switch s.Verb {
		case api.KVSet, api.KVCAS:
			k.setLocked(api.KVPair{Key: s.Key, Value: s.Value, Flags: s.Flags})
		case api.KVDelete, api.KVDeleteCAS:
			k.deleteLocked(s.Key)
		}
	}
	return -1
}
