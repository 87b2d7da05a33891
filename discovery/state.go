package discovery

import (
	"encoding/json"
	"fmt"
	"time"
)

// WatchState is what a watch knows, as one value. [Source.Run], a new source after a reload,
// a service with a new name, a new process and the snapshot get the same value. So whatever a watch
// must not forget belongs here. It is immutable.
type WatchState struct {
	// Source is the name of the source, as in WatchStatus. The state says nothing about
	// another one.
	Source string `json:"source"`

	// Addresses are those of an Addressed source; else empty.
	Addresses string `json:"addresses,omitempty"`

	Known bool `json:"known"` // Set is a set, which may be empty
	// Set is normalised. It has who is on probation and who of them has failed:
	// Instance.Probation, Instance.Failed.
	Set []Instance `json:"instances"`

	// Memory is what the source knows beside its set: one for each part of a service that
	// has parts, such as data centres.
	Memory []Memory `json:"memory,omitempty"`

	Fresh bool `json:"fresh"` // the last query was answered

	// As in WatchStatus.

	Endpoint    string    `json:"endpoint"`
	LastSuccess time.Time `json:"last_success,omitzero"`
	Restored    time.Time `json:"restored,omitzero"`
}

// Memory is what a source has learned from its registry beside the set of instances. The fields of
// the Guard are its own.
type Memory struct {
	Part string `json:"part,omitempty"` // such as the data centre; "" if the service has no parts

	// Index is the index of the last answer. Registry names the registry that gave it, if a
	// registry names itself. An answer with a smaller one, or of another registry, is from a
	// registry that has lost its state.
	Index    uint64 `json:"index,omitempty"`
	Registry string `json:"registry,omitempty"`

	// Filtered says that the registry has hidden instances from sluice's token: the visible
	// ones are the set.
	Filtered bool `json:"filtered,omitempty"`

	// Leader is whom the registry has named as the service's leader, and LeaderLost when it lost
	// that; zero: it has not. Package leader has the rules.
	Leader     string    `json:"leader,omitempty"`
	LeaderLost time.Time `json:"leader_lost,omitzero"`

	Guard GuardMemory `json:"guard,omitzero"`
}

// PartOf returns the memory of a part; the zero Memory if there is none.
func (s WatchState) PartOf(part string) Memory {
	for _, m := range s.Memory {
		if m.Part == part {
			return m
		}
	}
	return Memory{Part: part}
}

// UnmarshalJSON implements json.Unmarshaler. It rejects invalid instances.
func (s *WatchState) UnmarshalJSON(data []byte) error {
	type plain WatchState // without this method
	var state plain
	if err := json.Unmarshal(data, &state); err != nil {
		return err
	}
	for _, i := range state.Set {
		if i.Socket == "" && (i.Address == "" || i.Port < 1 || i.Port > 65535) || i.Weight < 0 || i.Weight > MaxWeight {
			return fmt.Errorf("instance %q is invalid", i.ID)
		}
	}
	state.Set = Normalize(state.Set)
	*s = WatchState(state)
	return nil
}

// Pause ends the sources and waits for them. The sets and states of the watches do not
// change until Resume.
func (m *Manager) Pause() {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	m.cancelAll()
	m.sources.Wait()
}

// cancelAll cancels the sources.
func (m *Manager) cancelAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused, m.resumed = true, nil
	for _, w := range m.watches {
		if w.cancel != nil {
			w.cancel()
			w.cancel = nil
			m.starting = append(m.starting, w)
		}
	}
}

// ResumeSome starts the sources of some services again after Pause.
func (m *Manager) ResumeSome(resumed func(service string) bool) {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resumed = resumed
	m.wake.Send()
}

// Resume starts the sources again after Pause.
func (m *Manager) Resume() {
	m.pausing.Lock()
	defer m.pausing.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused, m.resumed = false, nil
	m.again.Send()
	m.wake.Send()
}

// stateLocked returns the state of w; only the name of its source if the set is from another one.
func (w *watch) stateLocked() WatchState {
	if !w.known || w.origin != w.status.Source {
		return WatchState{Source: w.status.Source}
	}
	return WatchState{
		Source: w.status.Source, Addresses: addressesOf(w.source), Known: true, Set: w.latest, Memory: w.memory, Fresh: w.status.State == WatchFresh,
		Endpoint: w.status.Endpoint, LastSuccess: w.status.LastSuccess, Restored: w.status.Restored,
	}
}

// adoptLocked is the reverse of stateLocked for a watch without a set, and reports whether s is of
// the same source.
func (w *watch) adoptLocked(s WatchState) bool {
	if w.known || !s.Known || w.status.Source != s.Source {
		return false
	}
	w.origin, w.memory = s.Source, s.Memory
	w.setLatestLocked(Normalize(s.Set))
	state := WatchStale
	if s.Fresh {
		state = WatchFresh
	}
	w.setStateLocked(state, time.Now())
	w.status.Endpoint, w.status.LastSuccess, w.status.Restored = s.Endpoint, s.LastSuccess, s.Restored
	return true
}
