package certificates

import (
	"crypto/rand"
	"crypto/tls"
	"sync"
	"time"
)

const (
	// TicketKeyEvery is how long new session tickets are encrypted with the same key.
	TicketKeyEvery = 12 * time.Hour

	// MaxTicketKeys is how many keys are accepted: a ticket is valid for two days at
	// most.
	MaxTicketKeys = 4
)

// TicketKey encrypts the TLS session tickets of clients.
type TicketKey struct {
	Key  [32]byte  `json:"key"`
	Made time.Time `json:"made"`
}

// TicketKeys are the keys of all listeners. A reload keeps them, and a new process
// gets them, so that clients can resume their sessions. It is safe for concurrent use.
type TicketKeys struct {
	mu sync.Mutex
	// mu guards the field below.
	keys []TicketKey // the newest first
}

// Adopt uses the keys of the process before this one.
func (t *TicketKeys) Adopt(keys []TicketKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(keys) > 0 {
		t.keys = keys
	}
}

// All returns the keys, the newest first.
func (t *TicketKeys) All() []TicketKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys
}

// Rotate makes a new key if the newest one is old.
func (t *TicketKeys) Rotate(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) > 0 && now.Sub(t.keys[0].Made) < TicketKeyEvery {
		return
	}
	next := TicketKey{Made: now}
	rand.Read(next.Key[:]) // never fails
	t.keys = append([]TicketKey{next}, t.keys[:min(len(t.keys), MaxTicketKeys-1)]...)
}

// Use makes c use the keys.
func (t *TicketKeys) Use(c *tls.Config) {
	var keys [][32]byte
	for _, k := range t.All() {
		keys = append(keys, k.Key)
	}
	c.SetSessionTicketKeys(keys)
}
