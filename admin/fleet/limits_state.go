package fleet

import (
	"encoding/hex"
	"time"

	"sluice/route/ratelimit"
)

// LimitsState is what a process hands over to a new one: who the others are, which Consul may not
// say now.
type LimitsState struct {
	Seed     string       `json:"seed"` // of the hashes of keys, hexadecimal
	Replicas int          `json:"replicas"`
	Seen     int          `json:"seen"`
	Others   []OtherState `json:"others"`
}

// OtherState is another replica, as Consul has listed it last.
type OtherState struct {
	Replica string `json:"replica"` // its registration's MetaReplica
	Name    string `json:"name"`
	Host    string `json:"host"`
	Admin   string `json:"admin"`
	Status  string `json:"status"`
}

// Save returns the state for a new process; nil: the others are not known.
func (l *Limits) Save() *LimitsState {
	standing := l.Fleet.Standing()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		return nil
	}
	s := &LimitsState{hex.EncodeToString(standing.Seed[:]), standing.Replicas, standing.Seen, []OtherState{}}
	for _, o := range l.others {
		s.Others = append(s.Others, OtherState{o.replica, o.Name, o.Host, o.Admin, o.Status})
	}
	return s
}

// Restore begins with the state of the old process; nil: there is none. It must be called before
// Run and Follow.
func (l *Limits) Restore(old *LimitsState) {
	if old == nil || old.Seen < 1 || old.Replicas < old.Seen {
		return
	}
	seed, err := parseSeed(old.Seed)
	if err != nil {
		return
	}
	l.Fleet.Set(ratelimit.Standing{Seed: seed, Replicas: old.Replicas, Seen: old.Seen})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rounds, l.known = []counted{{ended: time.Now(), seed: seed}}, true
	for _, o := range old.Others[:min(len(old.Others), maxOthers)] {
		m := Member{Name: o.Name, Status: o.Status, Host: o.Host, Admin: o.Admin, replica: o.Replica}
		l.others = append(l.others, &otherReplica{Member: m, obstacle: notAsked}) // until prepare
	}
}
