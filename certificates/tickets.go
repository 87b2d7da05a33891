package certificates

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// TicketKeyEvery is how long new session tickets are encrypted with the same key.
	TicketKeyEvery = 12 * time.Hour

	// MaxTicketKeys is how many keys are accepted: a ticket is valid for two days at most.
	MaxTicketKeys = 4

	// maxFileKeys bounds the keys of a file: a client's ticket is tried with each.
	maxFileKeys = 16
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

// Restore uses the keys of the process before this one.
func (t *TicketKeys) Restore(keys []TicketKey) {
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

// Rotate makes a new key if the newest one is old, or of a time far ahead: the clock was wrong.
func (t *TicketKeys) Rotate(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.keys) > 0 && now.Sub(t.keys[0].Made).Abs() < TicketKeyEvery {
		return
	}
	next := TicketKey{Made: now}
	rand.Read(next.Key[:]) // never fails
	t.keys = append([]TicketKey{next}, t.keys[:min(len(t.keys), MaxTicketKeys-1)]...)
}

// Use makes c use the keys. Those of a file, if any, come first: the first key seals new tickets,
// and all open tickets.
func (t *TicketKeys) Use(c *tls.Config, ofFile [][32]byte) {
	keys := slices.Clone(ofFile)
	for _, k := range t.All() {
		keys = append(keys, k.Key)
	}
	c.SetSessionTicketKeys(keys)
}

// parseTicketKeys returns the keys in a file: 32 bytes in base64 on each line. It skips empty
// lines, and lines that begin with #. No error contains a key.
func parseTicketKeys(text string) (keys [][32]byte, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != keyBytes {
			return nil, fmt.Errorf("line %d: want a key of %d bytes in base64", n, keyBytes)
		}
		if keys = append(keys, [32]byte(key)); len(keys) > maxFileKeys {
			return nil, fmt.Errorf("has more than %d keys: remove the oldest", maxFileKeys)
		}
		if slices.Contains(keys[:len(keys)-1], keys[len(keys)-1]) {
			return nil, fmt.Errorf("line %d: a key that an earlier line has", n)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("want at least one key of %d bytes in base64", keyBytes)
	}
	return keys, nil
}
