package gateway

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/test/discoverytest"
)

// keyOfLeader is a Consul with a key, in front of a fake one with the rest.
type keyOfLeader struct {
	*discoverytest.Consul

	mu sync.Mutex
	// mu guards the fields below.
	index   uint64
	holder  string // of the key; "": there is none
	broken  bool
	changed chan struct{}
}

const (
	leaderKey  = "service/db/leader"
	firstIndex = 100_000
)

func (k *keyOfLeader) change(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f()
	close(k.changed)
	k.changed = make(chan struct{})
}

// look returns the answer, or what tells of another one.
func (k *keyOfLeader) look(after uint64) (index uint64, body string, broken bool, changed chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.broken:
		return 0, "", true, nil
	case after == k.index:
		return 0, "", false, k.changed
	case k.holder == "":
		return k.index, "", false, nil
	}
	value := base64.StdEncoding.EncodeToString([]byte(k.holder))
	return k.index, fmt.Sprintf(`[{"Key":%q,"Value":%q,"LockIndex":1,"Session":"s"}]`, leaderKey, value), false, nil
}

func (k *keyOfLeader) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/v1/kv/") {
		k.Consul.ServeHTTP(w, r)
		return
	}
	after, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	over := time.After(wait)
	for {
		index, body, broken, changed := k.look(after)
		if broken {
			panic(http.ErrAbortHandler)
		}
		if changed == nil {
			w.Header().Set("X-Consul-Index", strconv.FormatUint(index, 10))
			w.Header().Set("X-Consul-KnownLeader", "true")
			if body == "" {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = io.WriteString(w, body)
			return
		}
		select {
		case <-changed:
		case <-over:
			after = 0
		case <-r.Context().Done():
			return
		}
	}
}
