package simulation

import (
	"math/rand/v2"
	"slices"

	"sluice/balancer"
	"sluice/discovery"
)

// drawGroups chooses the groups, by the tags of drawLabels. Not with a subset: each group
// then has its own.
func (s *service) drawGroups(random *rand.Rand) {
	s.options.Groups = nil
	if s.options.Subset.Size > 0 || random.IntN(3) > 0 {
		return
	}
	for _, tag := range []string{"canary", "main"}[:1+random.IntN(2)] {
		s.options.Groups = append(s.options.Groups, balancer.GroupSelector{Name: tag, Selector: balancer.Selector{Tags: []string{tag}}})
	}
}

func (s *service) groupOf(i discovery.Instance) string {
	for _, g := range s.options.Groups {
		if slices.Contains(i.Tags, g.Name) {
			return g.Name
		}
	}
	return balancer.RestGroup
}

// drawGroup chooses the group and the fallback of a request. Its service may have neither.
func (r *request) drawGroup() {
	names := []string{"", "", "canary", "main", balancer.RestGroup}
	r.group, r.fallback = pick(r.random, names...), pick(r.random, names...)
	if r.group == "" {
		r.fallback = ""
		return
	}
	r.query.Group = r.service.pool.Group(r.group).ID()
	if r.fallback != "" {
		r.query.Fallback = r.service.pool.Group(r.fallback).ID()
	}
}

// parts returns what a request may pick from: its group, then its fallback.
func (r *request) parts() []*balancer.Part {
	snapshot := r.service.pool.Snapshot()
	part := func(name string) *balancer.Part {
		for _, part := range snapshot.Groups {
			if part.Group.Name() == name {
				return part
			}
		}
		return &snapshot.Part
	}
	parts := []*balancer.Part{part(r.group)}
	if r.fallback != "" {
		parts = append(parts, part(r.fallback))
	}
	return parts
}

// untried returns the eligible peers of the first part that has some which were not tried.
func (r *request) untried() []*balancer.Peer {
	for _, part := range r.parts() {
		left := slices.DeleteFunc(slices.Clone(part.Eligible), func(actual *balancer.Peer) bool { return r.tried[actual] })
		if len(left) > 0 {
			return left
		}
	}
	return nil
}

// checkGroups: each peer is in the group that its instance belongs to, and in use there if
// it is at all.
func (s *service) checkGroups() {
	w, snapshot := s.w, s.pool.Snapshot()
	want := len(s.options.Groups)
	if want > 0 {
		want++ // the rest
	}
	if len(snapshot.Groups) != want {
		w.violateLocked("%s: %d groups, want %d", s.name, len(snapshot.Groups), want)
		return
	}
	for _, part := range snapshot.Groups {
		name := part.Group.Name()
		isIn := func(actual *balancer.Peer) bool { return s.groupOf(actual.Instance()) == name }
		for _, actual := range snapshot.All {
			if slices.Contains(part.All, actual) != isIn(actual) || (actual.Group() == part.Group) != isIn(actual) {
				w.violateLocked("%s: in group %s: %v, want %v", s.peers[actual], name, !isIn(actual), isIn(actual))
			}
			if used := isIn(actual) && slices.Contains(snapshot.Eligible, actual); slices.Contains(part.Eligible, actual) != used {
				w.violateLocked("%s: used in group %s: %v, want %v", s.peers[actual], name, !used, used)
			}
		}
	}
}

// checkGroupOfTry: a request leaves its group only for its fallback, and only after all peers
// of the group.
func (s *service) checkGroupOfTry(r *request, p *peer) {
	if r.group == "" || s.pool.Snapshot().Groups == nil {
		return
	}
	parts := r.parts()
	if slices.Contains(parts[0].Eligible, p.actual) {
		s.w.counts["try in a group"]++
		return
	}
	if r.mayResort() && slices.Contains(parts[len(parts)-1].All, p.actual) && !slices.Contains(parts[len(parts)-1].Eligible, p.actual) {
		s.w.counts["last resort"]++
		return
	}
	if len(parts) < 2 || !slices.Contains(parts[1].Eligible, p.actual) {
		s.w.doubtLocked(s.now().shifted, "request %d: on %s, which is not in group %s", r.number, p, r.group)
		return
	}
	for _, actual := range parts[0].Eligible {
		if !r.tried[actual] {
			s.w.doubtLocked(s.now().shifted, "request %d: on %s of its fallback, though %s of group %s has not been tried", r.number, p, s.peers[actual], r.group)
		}
	}
	s.w.counts["try in a fallback"]++
}
