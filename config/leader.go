package config

// Leader says which instance of a service gets everything: the one that Consul names. One of Tag, Passing and Key is
// set.
type Leader struct {
	Tag     string `key:"tag"`                     // the leader has it
	Passing bool   `key:"passing" default:"false"` // the leader is the one whose checks pass
	Key     string `key:"key"`                     // in Consul's KV store: its value names the leader
	// OnDemotion is what happens to the connections and requests of an instance that no longer leads.
	OnDemotion string `key:"on_demotion" default:"cut" oneof:"cut|drain"`
}

// CutsDemoted reports whether connections to an instance end at once when it no longer leads. l may be nil.
func (l *Leader) CutsDemoted() bool { return l != nil && l.OnDemotion == "cut" }

// check checks which keys are set together.
func (l *Leader) check(d *decoder, key string) {
	if l == nil || d.failed(key) {
		return
	}
	set := 0
	for _, is := range []bool{l.Tag != "", l.Passing, l.Key != ""} {
		if is {
			set++
		}
	}
	if set != 1 {
		d.refuse(key, "", "want one of tag, passing: true and key, which says how Consul names the leader")
	}
}

// Leader returns how Consul names the leader of s; nil: all instances are used.
func (s *Service) Leader() *Leader {
	if s.Consul == nil {
		return nil
	}
	return s.Consul.Leader
}
