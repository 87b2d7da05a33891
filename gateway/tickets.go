package gateway

import (
	"crypto/rand"
	"crypto/tls"
	"sync"
	"time"
)

const (
	// ticketKeyEvery is how long new session tickets are encrypted with the same key.
	ticketKeyEvery = 12 * time.Hour

	// maxTicketKeys is how many keys are accepted: a ticket is valid for two days at
	// most.
	maxTicketKeys = 4
)

// ticketKey encrypts the TLS session tickets of clients.
type ticketKey struct {
	Key  [32]byte  `json:"key"`
	Made time.Time `json:"made"`
}

// ticketKeys are the keys of all listeners. A reload keeps them, and a new process
// gets them, so that clients can resume their sessions. It is safe for concurrent use.
type ticketKeys struct {
	mu sync.Mutex
	// mu guards the field below.
	keys []ticketKey // the newest first
}

// adopt uses the keys of the process before this one.
func (t *ticketKeys) adopt(keys []ticketKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(keys) > 0 {
		t.keys = keys
	}
}

// all returns the keys, the newest first.
func (t *ticketKeys) all() []ticketKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys
}

// rotate makes a new key if the newest one is old.
func (t *ticketKeys) rotate(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) > 0 && now.Sub(t.keys[0].Made) < ticketKeyEvery {
		return
	}
	next := ticketKey{Made: now}
	rand.Read(next.Key[:]) // never fails
	t.keys = append([]ticketKey{next}, t.keys[:min(len(t.keys), maxTicketKeys-1)]...)
}

// use makes c use the keys.
func (t *ticketKeys) use(c *tls.Config) {
	var keys [][32]byte
	for _, k := range t.all() {
		keys = append(keys, k.Key)
	}
	c.SetSessionTicketKeys(keys)
}
