package live

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/config"
	"sluice/discovery"
)

// Memory decides what counts of a source, by the rule of discovery.Stay: what disappears with the
// last document, or with the memory of the source, counts for discovery.Stay, or until it is
// written again. It is the same for files, Consul's KV store and etcd. A Memory is not safe for
// concurrent use.
type Memory struct {
	// Empties says that nothing of what disappears counts: see config.Dynamic.Empties.
	Empties bool
	// State is what the source has reported, with what it has lost. It may come from another
	// process.
	State config.Source
}

// Take makes r, a report without an error, the state. It returns when some of it ceases to count
// without another report: then Expire; zero: never.
func (m *Memory) Take(r Report, now time.Time) (next time.Time) {
	said := r.Said
	missing := slices.DeleteFunc(slices.Clone(m.State.Documents), func(d config.Document) bool { return hasDocument(said, d.Name) })
	mayBeLost := r.Forgot || len(said.Documents) == 0 && !r.Deleted
	until := make(map[string]time.Time)
	for _, l := range m.State.Lost {
		until[l.Document] = l.Until
		if longest := stayUntil(now); l.Until.After(longest) { // the clock was put back
			until[l.Document] = longest
		}
	}
	said.Documents, said.Lost = slices.Clone(said.Documents), nil
	for _, d := range missing {
		end, already := until[d.Name]
		if !already && mayBeLost {
			end = stayUntil(now)
		}
		if m.Empties || !now.Before(end) {
			continue
		}
		said.Documents = insert(said, d)
		said.Lost = append(said.Lost, config.Lost{Document: d.Name, Until: end})
		if next.IsZero() || end.Before(next) {
			next = end
		}
	}
	m.State = said
	return next
}

// stayUntil returns until when what disappears now counts.
func stayUntil(now time.Time) time.Time { return now.Add(discovery.Stay).UTC().Truncate(time.Second) }

// Expire removes what does not count any more, and returns when some more does not; zero: never.
func (m *Memory) Expire(now time.Time) (next time.Time) {
	said := m.State
	said.Documents = slices.DeleteFunc(slices.Clone(said.Documents), func(d config.Document) bool {
		return slices.ContainsFunc(m.State.Lost, func(l config.Lost) bool { return l.Document == d.Name })
	})
	return m.Take(Report{Said: said, Deleted: true}, now)
}

// Problem says what the source has lost; nil: nothing.
func (m *Memory) Problem() error {
	if len(m.State.Lost) == 0 {
		return nil
	}
	var names []string
	last := m.State.Lost[0].Until
	for _, l := range m.State.Lost {
		if names = append(names, l.Document); l.Until.After(last) {
			last = l.Until
		}
	}
	const some = 10
	if more := len(names) - some; more > 0 {
		names = append(names[:some], fmt.Sprintf("%d more", more))
	}
	return fmt.Errorf("%s: documents have disappeared with the last one, or with what it knew: they stay in use until they are written again, at most until %s; allow_empty: true removes them: %s",
		m.State.Name, last.Format(time.RFC3339), strings.Join(names, ", "))
}

// insert returns the documents of s and d, in the order in which sources report them: the order of
// their names, but what is named like the source, which stands for all keys that are no documents,
// is last.
func insert(s config.Source, d config.Document) []config.Document {
	at := slices.IndexFunc(s.Documents, func(after config.Document) bool {
		return d.Name != s.Name && (after.Name == s.Name || after.Name > d.Name)
	})
	if at < 0 {
		at = len(s.Documents)
	}
	return slices.Insert(s.Documents, at, d)
}

func hasDocument(s config.Source, name string) bool {
	return slices.ContainsFunc(s.Documents, func(d config.Document) bool { return d.Name == name })
}
