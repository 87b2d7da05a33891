package config

import (
	"slices"
	"sync"
	"time"
)

// Revision is a loaded configuration. In a History only its Hash changes, if another text
// gives the same configuration.
type Revision struct {
	Number uint64    // from 1 in each process; 0 before it is applied
	Time   time.Time // when sluice applied it
	Source string    // the file, or "command line"
	Hash   string    // of the bytes of the file
	Config *Config
	// Warnings lists accepted keys of earlier versions, each with its file and line.
	Warnings []string
	// Pending lists the keys whose new values take effect at the next start.
	Pending []string
}

// Refusal is a configuration that was not applied.
type Refusal struct {
	Time   time.Time
	Source string
	Err    error
}

// Reloads counts the loads of this process.
type Reloads struct {
	Applied uint64   // applied revisions, with the first
	Refused uint64   // failed loads
	Last    *Refusal // of the latest load; nil if it succeeded
}

// keepRevisions is the number of revisions in a History.
const keepRevisions = 50

// History contains the latest applied revisions, and counts loads. The zero value is
// empty. Its methods may be called concurrently.
type History struct {
	mu sync.Mutex // guards the fields below

	revisions []Revision // oldest first, at most keepRevisions
	reloads   Reloads
}

// Applied sets the number and the time of r, adds it, and returns it.
func (h *History) Applied(r Revision) Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads.Applied++
	h.reloads.Last = nil
	r.Number, r.Time = h.reloads.Applied, time.Now()
	if len(h.revisions) == keepRevisions {
		h.revisions = slices.Delete(h.revisions, 0, 1)
	}
	h.revisions = append(h.revisions, r)
	return r
}

// Unchanged records a load, of a text with that hash, that gave the configuration in use.
// It ends an earlier refusal.
func (h *History) Unchanged(hash string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads.Last = nil
	if last := len(h.revisions) - 1; last >= 0 {
		h.revisions[last].Hash = hash
	}
}

// Refused records that a configuration from source was not applied.
func (h *History) Refused(source string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads.Refused++
	h.reloads.Last = &Refusal{Time: time.Now(), Source: source, Err: err}
}

// Current returns the revision in use, or the zero value before the first.
func (h *History) Current() Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.revisions) == 0 {
		return Revision{}
	}
	return h.revisions[len(h.revisions)-1]
}

// Revisions returns the latest revisions, newest first.
func (h *History) Revisions() []Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	newest := slices.Clone(h.revisions)
	slices.Reverse(newest)
	return newest
}

// Reloads returns the counts of loads.
func (h *History) Reloads() Reloads {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reloads
}
