package config

import (
	"slices"
	"sync"
	"time"
)

// Revision is an applied configuration. In a History only its Sources change, if
// other texts give the same configuration.
type Revision struct {
	// Number is at least 1 and never used twice, also by later processes with the same
	// history.
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`   // when sluice applied it
	Source string    `json:"source"` // the file, or "command line"
	// Hash is the hash of the configuration in canonical form, without what belongs to one
	// replica. It is equal on all replicas with otherwise the same documents.
	Hash    string   `json:"hash"`
	Reason  string   `json:"reason"`  // why it was applied, such as "start" or "changed: consul_kv:sluice/"
	Sources []Source `json:"sources"` // the documents, of the file first; they may contain secrets
	// Diff lists the differences from the revision before. Secrets are masked.
	Diff []Change `json:"diff,omitempty"`
	// Config is what the documents say, with all defaults; nil for a revision of an earlier
	// process, and for an old one if there are many routes: Build returns it.
	Config *Config `json:"-"`
	// Pending lists the keys whose new values take effect at the next start.
	Pending []string `json:"pending,omitempty"`
	// OnlyShares says that the documents have not changed since the revision before: a judge or an
	// operator has changed a share.
	OnlyShares bool `json:"given,omitempty"`
}

// Reloads counts the loads of this process.
type Reloads struct {
	Applied uint64 // applied revisions, with the first
	Refused uint64 // failed loads
}

// keepRevisions is the number of revisions in a History, and keepOnlyShares the number with
// OnlyShares among them: shares may change often, and must not drive out the documents.
const (
	keepRevisions  = 50
	keepOnlyShares = 10
)

// keepRoutes is the number of routes up to which the revisions of a History have their Config:
// 10,000 routes need some megabytes.
const keepRoutes = 50_000

// newest returns the revisions to keep.
func newest(revisions []Revision) []Revision {
	routes := 0
	for i, r := range slices.Backward(revisions) {
		if r.Config == nil {
			continue
		}
		if routes += len(r.Config.Routes); routes > keepRoutes && i < len(revisions)-1 {
			revisions[i].Config = nil
		}
	}
	given := 0
	for _, r := range revisions {
		if r.OnlyShares {
			given++
		}
	}
	revisions = slices.DeleteFunc(revisions, func(r Revision) bool {
		if r.OnlyShares {
			given--
		}
		return r.OnlyShares && given >= keepOnlyShares
	})
	for len(revisions) > keepRevisions {
		drop := leastNeeded(revisions)
		revisions = slices.Delete(revisions, drop, drop+1)
	}
	return revisions
}

// leastNeeded returns the index of the oldest revision that is followed by one with the same text
// of the file, or else 0. So documents that change do not drive out the last revision of an earlier
// file. Those with OnlyShares have their own bound.
func leastNeeded(revisions []Revision) int {
	for i := range len(revisions) - 1 {
		if !revisions[i].OnlyShares && sameFile(revisions[i], revisions[i+1]) {
			return i
		}
	}
	return 0
}

func sameFile(a, b Revision) bool {
	return len(a.Sources) > 0 && len(b.Sources) > 0 && slices.Equal(a.Sources[0].Documents, b.Sources[0].Documents)
}

// History contains the latest applied revisions, and counts loads. The zero value is
// empty. Its methods may be called concurrently.
type History struct {
	writing sync.Mutex // held from a change until the file has it: changes are written in their order
	mu      sync.Mutex // guards the fields below

	revisions []Revision // oldest first, at most keepRevisions
	highest   uint64     // number of all revisions, also of the ones that are not kept
	saved     uint64     // number of the latest revision that was read from the file, or written to it
	dirty     bool       // the file lacks what this process has: another process writes it
	reloads   Reloads
	file      *historyFile // nil: the revisions end with the process
	owned     bool         // this process writes file
}

// Applied sets the number and the time of r, adds it, and returns it.
func (h *History) Applied(r Revision) Revision {
	h.change(func() bool {
		h.reloads.Applied++
		r = h.addLocked(r)
		return true
	})
	return r
}

// RecordShares adds a revision with the documents of the latest: the shares have changed. It must
// not be the first.
func (h *History) RecordShares(reason string, diff []Change) Revision {
	var r Revision
	h.change(func() bool {
		r = h.lastLocked()
		r.Reason, r.Diff, r.OnlyShares = reason, diff, true
		r = h.addLocked(r)
		return true
	})
	return r
}

func (h *History) addLocked(r Revision) Revision {
	h.highest++
	r.Number, r.Time = h.highest, time.Now()
	h.revisions = newest(append(h.revisions, r))
	return r
}

// change calls f, which changes the revisions under mu. If f returns true and this process owns the
// file, it writes the latest revision to the file.
func (h *History) change(f func() (save bool)) {
	h.writing.Lock()
	defer h.writing.Unlock()
	if file, revisions := h.changed(f); file != nil {
		file.save(revisions) // a slow disk does not delay readers
	}
}

// changed calls f, and returns what to write, and where; nil: nothing.
func (h *History) changed(f func() (save bool)) (*historyFile, []Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !f() {
		return nil, nil
	}
	if h.dirty = h.file != nil && !h.owned; h.dirty || h.file == nil {
		return nil, nil
	}
	h.saved = h.lastLocked().Number
	return h.file, slices.Clone(h.revisions)
}

// SetOwned says whether this process, and no other one, writes the file. What it has applied before
// is in the file when SetOwned returns: after the revisions of the process that wrote it until
// then, and with other numbers than these. If it does not own the file, it writes nothing after
// SetOwned has returned.
func (h *History) SetOwned(owned bool) {
	h.change(func() bool {
		h.owned = owned
		if !owned || !h.dirty || len(h.revisions) == 0 {
			return false
		}
		h.joinLocked()
		return true
	})
}

// joinLocked puts what this process has applied after what the file has.
func (h *History) joinLocked() {
	written, highest := h.file.read()
	h.file.replace = true     // another process may have written it
	n := len(h.revisions) - 1 // the latest is in use here, whatever others have applied
	for n > 0 && h.revisions[n-1].Number > h.saved {
		n--
	}
	earlier, own := h.revisions[:n], slices.Clone(h.revisions[n:])
	if len(written) > 0 && written[len(written)-1].Number > h.saved {
		earlier = written
	}
	if highest > h.saved {
		for i := range own {
			highest++
			own[i].Number = highest
		}
	}
	h.highest = max(h.highest, highest)
	h.revisions = newest(slices.Concat(earlier, own))
}

// Unchanged records a load of other documents, or of another state of their sources, that gave the
// configuration in use.
func (h *History) Unchanged(sources []Source) {
	h.change(func() bool {
		last := len(h.revisions) - 1
		if last < 0 {
			return false
		}
		before := h.revisions[last].Sources
		h.revisions[last].Sources = sources
		return !slices.EqualFunc(before, sources, Source.goesOnAs)
	})
}

// Resume says that the latest revision, of an earlier process, is in use again, with the
// configuration c of these sources.
func (h *History) Resume(c *Config, sources []Source) (resumed Revision) {
	h.change(func() bool {
		h.reloads.Applied++
		last := &h.revisions[len(h.revisions)-1]
		same := slices.EqualFunc(last.Sources, sources, Source.goesOnAs)
		last.Config, last.Sources, last.Pending = c, sources, nil
		resumed = *last
		return !same || !h.owned // the process that owns the file may apply others meanwhile
	})
	return resumed
}

// Restore takes over the revisions of another process, which has the state of now, whatever the
// file has, and reports whether there are some.
func (h *History) Restore(other *History) bool {
	if other.Current().Number == 0 {
		return false
	}
	revisions := other.Revisions()
	slices.Reverse(revisions)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revisions = revisions
	h.saved = h.lastLocked().Number
	h.highest, h.dirty = max(h.highest, h.saved), h.file != nil
	return true
}

// Refused records that a configuration was not applied.
func (h *History) Refused() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads.Refused++
}

// Current returns the latest revision, or the zero value before the first. It is the one in
// use after Applied or Resume.
func (h *History) Current() Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lastLocked()
}

func (h *History) lastLocked() Revision {
	if len(h.revisions) == 0 {
		return Revision{}
	}
	return h.revisions[len(h.revisions)-1]
}

// Revision returns the revision with a number, if it is kept.
func (h *History) Revision(number uint64) (Revision, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.revisions, func(r Revision) bool { return r.Number == number })
	if i < 0 {
		return Revision{}, false
	}
	return h.revisions[i], true
}

// Permanent reports whether the revisions outlive the process: see Keep.
func (h *History) Permanent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.file != nil
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
