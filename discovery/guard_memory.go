package discovery

import (
	"cmp"
	"slices"
	"time"
)

// GuardMemory is what a Guard knows beside the set that it has returned last.
type GuardMemory struct {
	// Before is the number of instances in service before the loss that has put instances on
	// probation.
	Before int `json:"before,omitempty"`

	// Lost is the newest Instance.Registered before the last loss; 0: there was none.
	Lost uint64 `json:"lost,omitempty"`

	// AsOf is the time of the last accepted answer; zero after a failure. Settled is until when
	// instances that go missing are on probation because of the last failure.
	AsOf    time.Time `json:"as_of,omitzero"`
	Settled time.Time `json:"settled,omitzero"`

	Departed  []Departure      `json:"departed,omitempty"`
	Arrived   []time.Time      `json:"arrived,omitempty"` // of others in service that replace none
	Probation []ProbationSpent `json:"probation,omitempty"`
}

// Departure is an instance in service that went missing a short time ago.
type Departure struct {
	Instance Instance  `json:"instance"`
	At       time.Time `json:"at"`
}

// ProbationSpent is how long an instance has been on probation, while the registry answered.
type ProbationSpent struct {
	Key   Key           `json:"key"`
	Spent time.Duration `json:"spent"`
	Brief bool          `json:"brief,omitempty"` // its probation ends at GuardMemory.Settled

	Silent time.Time `json:"silent,omitzero"` // since when it is listed as unchecked
}

// Memory returns what g knows beside the set that Accept has returned last.
func (g *Guard) Memory() GuardMemory {
	m := GuardMemory{Lost: g.lost, AsOf: g.asOf, Settled: g.settled, Departed: slices.Clone(g.departed), Arrived: slices.Clone(g.arrived)}
	if len(g.probation) > 0 {
		m.Before = g.before
	}
	for key, p := range g.probation {
		m.Probation = append(m.Probation, ProbationSpent{key, p.spent, p.brief, p.silent})
	}
	slices.SortFunc(m.Probation, func(a, b ProbationSpent) int {
		return cmp.Or(cmp.Compare(a.Key.ID, b.Key.ID), cmp.Compare(a.Key.Address, b.Key.Address), cmp.Compare(a.Key.Machine, b.Key.Machine))
	})
	return m
}

// Restore continues, before the first answer, a Guard that has returned set, with this memory.
func (g *Guard) Restore(set []Instance, m GuardMemory) {
	g.known, g.probation, g.lost = nil, nil, m.Lost
	g.asOf, g.departed, g.arrived = m.AsOf, slices.Clone(m.Departed), slices.Clone(m.Arrived)
	if m.Settled.After(g.settled) {
		g.settled = m.Settled
	}
	spent := make(map[Key]ProbationSpent, len(m.Probation))
	for _, s := range m.Probation {
		spent[s.Key] = s
	}
	for _, i := range set {
		if s, lost := spent[i.Key()]; lost || !i.Probation.IsZero() {
			g.suspend(probationer{instance: i, spent: s.Spent, brief: s.Brief, silent: s.Silent})
		} else {
			g.known = append(g.known, i)
		}
	}
	g.before = cmp.Or(m.Before, CountServing(g.known)+g.lostInService())
}
