package config

import (
	"slices"
	"sync"
	"time"
)

// Revision is a configuration that was loaded. Only its Hash changes once it is
// in a History, with a text that says the same.
type Revision struct {
	Number uint64    // 1 for the first one of this process; 0 before it is applied
	Time   time.Time // when it was applied
	Source string    // the file, or "command line"
	Hash   string    // of the file's bytes; two loads with the same hash had the same text
	Config *Config
	// Warnings are about keys that are accepted and have no effect any more, a line
	// each, with file and line.
	Warnings []string
	// Pending are the keys whose new value takes effect at the next start.
	Pending []string
}

// Refusal is a configuration that was not applied.
type Refusal struct {
	Time   time.Time
	Source string
	Err    error
}

// Reloads is how loading has fared so far.
type Reloads struct {
	Applied uint64   // revisions applied, the first one included
	Refused uint64   // loads that failed
	Last    *Refusal // why the latest load failed; nil if it did not
}

// keepRevisions is how many revisions a History keeps.
const keepRevisions = 50

// History keeps what was applied and what was refused. It is safe for
// concurrent use; the zero value is ready.
type History struct {
	mu sync.Mutex // guards the fields below

	revisions []Revision // oldest first, at most keepRevisions
	reloads   Reloads
}

// Applied adds r with the next number and the present time, and returns it so.
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

// Unchanged says that the latest load, of a text with that hash, gave what is in
// use already: an earlier refusal is over.
func (h *History) Unchanged(hash string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads.Last = nil
	if last := len(h.revisions) - 1; last >= 0 {
		h.revisions[last].Hash = hash
	}
}

// Refused notes that a configuration from source was not applied.
func (h *History) Refused(source string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads.Refused++
	h.reloads.Last = &Refusal{Time: time.Now(), Source: source, Err: err}
}

// Current returns the revision in use: the zero value before the first one.
func (h *History) Current() Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.revisions) == 0 {
		return Revision{}
	}
	return h.revisions[len(h.revisions)-1]
}

// Revisions returns the revisions that are kept, newest first.
func (h *History) Revisions() []Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	newest := slices.Clone(h.revisions)
	slices.Reverse(newest)
	return newest
}

// Reloads returns how loading has fared.
func (h *History) Reloads() Reloads {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reloads
}
