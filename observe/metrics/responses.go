package metrics

import (
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
)

// maxResponses is how many statuses of a service are counted apart: so many without a reason, and
// so many with one, so that an app that sends any status leaves room for sluice's reasons.
const maxResponses = 32

// others is what all further statuses and reasons are counted as.
var others = responseKey{-1, "other"}

type responseKey struct {
	status int
	reason string
}

// responses count answers by status and reason. A status is added when it is seen first.
type responses struct {
	mu   sync.Mutex // for who adds
	list atomic.Pointer[[]response]
}

type response struct {
	responseKey
	shards []responseShard
}

// responseShard is one copy of a counter, on a cache line of its own.
type responseShard struct {
	n atomic.Uint64
	_ [56]byte
}

// ObserveResponse counts an answer with this final status, and the reason of docs/reasons.md for
// one that sluice has made or cut; "": it was a peer's. The request counts too: see Observe.
func (r *Requests) ObserveResponse(shard uint32, status int, reason string) {
	key := responseKey{status, reason}
	shards, _ := r.responses.find(key)
	if shards == nil {
		shards = r.responses.add(key, len(r.shards))
	}
	shards[shard&r.mask].n.Add(1)
}

// find returns the counter of key, or nil and as what it is to be counted.
func (r *responses) find(key responseKey) ([]responseShard, responseKey) {
	alike := 0
	for _, known := range r.all() {
		if known.responseKey == key {
			return known.shards, key
		}
		if (known.reason == "") == (key.reason == "") {
			alike++
		}
	}
	if alike < maxResponses || key == others {
		return nil, key
	}
	return r.find(others)
}

// add returns the counter of key, which was not there.
func (r *responses) add(key responseKey, shards int) []responseShard {
	r.mu.Lock()
	defer r.mu.Unlock()
	counter, key := r.find(key)
	if counter == nil {
		counter = make([]responseShard, shards)
		list := append(slices.Clone(r.all()), response{key, counter})
		r.list.Store(&list)
	}
	return counter
}

func (r *responses) all() []response {
	if list := r.list.Load(); list != nil {
		return *list
	}
	return nil
}

// Response is how many answers had a status and a reason, as labels: see ObserveResponse. Those
// beyond the bound have "other" in both.
type Response struct {
	Status, Reason string
	Count          uint64
}

// Responses returns the answers by status and reason: at most 65.
func (r *Requests) Responses() (all []Response) {
	for _, of := range r.responses.all() {
		response := Response{Status: strconv.Itoa(of.status), Reason: of.reason}
		if of.responseKey == others {
			response.Status = others.reason
		}
		for i := range of.shards {
			response.Count += of.shards[i].n.Load()
		}
		all = append(all, response)
	}
	return all
}
