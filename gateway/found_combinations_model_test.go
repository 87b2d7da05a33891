package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sluice/config"
	"sluice/test/verify"
)

// A timeline has the states of something, the latest last. Those from settled on may be in force.
type timeline[T any] struct {
	states  []T
	settled int
}

func (l *timeline[T]) publish(states ...T) { l.states = append(l.states, states...) }

func (l *timeline[T]) latest() T { return l.states[len(l.states)-1] }

func (l *timeline[T]) settle() { l.settled = len(l.states) - 1 }

// A foundService is a state of a service in Consul. It is not changed.
type foundService struct {
	name      string
	instances []foundInstance
	forgotten bool // Consul has lost its state since the instances have registered: their order is another one there
	before    int  // how many were in service before the loss
}

// A foundInstance is an instance with what it asks for.
type foundInstance struct {
	name, address string
	asks          []*ask // at most one for a key
	upstream      string // protocol that it asks for; "": none; wrong: one that there is not
	out           string // why it is out of service; "": it is in service
	lost          bool   // by Consul, so it is on probation
	registered    int    // when it was written; an instance tells
}

const wrongUpstream = "wrong"

// tags returns the tags and the meta of an instance.
func (i *foundInstance) tags() (tags []string, meta map[string]string) {
	meta = map[string]string{"written": fmt.Sprint(i.registered)}
	if i.upstream != "" {
		tags = append(tags, "sluice.upstream=protocol="+i.upstream)
	}
	for _, a := range i.asks {
		if tags = append(tags, a.tags...); a.meta != "" {
			meta["sluice_route"] = a.meta
		}
	}
	return tags, meta
}

// profile returns the tags that a configuration reads. Instances of a group have the same.
func (i *foundInstance) profile(f *foundFile) string {
	tags, meta := i.tags()
	tags = slices.DeleteFunc(tags, func(tag string) bool { return !f.reads(dialectOf(tag)) })
	if f.reads(config.DialectSluice) {
		tags = append(tags, meta["sluice_route"])
	}
	slices.Sort(tags)
	return strings.Join(tags, "\n")
}

func (i *foundInstance) usable() bool { return i.out == "" }

// older reports whether i decides before o.
func (i *foundInstance) older(o *foundInstance) bool {
	serving := func(i *foundInstance) bool { return i.usable() && !i.lost }
	switch {
	case serving(i) != serving(o):
		return serving(i)
	case i.usable() != o.usable():
		return i.usable()
	}
	return i.registered < o.registered
}

// A target is what becomes of the requests of a key at a service.
type target struct {
	*ask
	service  string
	closed   bool     // it denies every request
	peers    []string // who may get one
	protocol string
}

// targets returns what a service has with a configuration, by the rules of docs/tags.md.
func (s *foundService) targets(f *foundFile) map[*askedKey]target {
	if !f.inConsul(s.name) {
		return nil
	}
	type member struct {
		*foundInstance
		asks map[*askedKey]target
	}
	upstream := func(i *foundInstance) string { // that counts
		if f.defines(s.name) || !f.reads(config.DialectSluice) {
			return ""
		}
		return i.upstream
	}
	settings := func(i *foundInstance) string { // of the service: upstream, and the policy of a service with connections
		streams := slices.ContainsFunc(i.asks, func(a *ask) bool { return a.protocol != "" && a.kind != wrongAsk })
		return fmt.Sprint(upstream(i), streams && !f.defines(s.name) && f.reads(config.DialectTraefik))
	}
	var members []member
	var first *foundInstance // decides about the protocol
	for n := range s.instances {
		m := member{&s.instances[n], make(map[*askedKey]target)}
		wrong := upstream(m.foundInstance) == wrongUpstream
		for _, a := range m.foundInstance.asks {
			if f.allows(a.askedKey) && a.kind != wrongAsk && (!wrong || a.restricts()) {
				m.asks[a.askedKey] = target{ask: a, service: s.name, closed: wrong || a.kind == closedAsk}
			}
		}
		if members = append(members, m); len(m.asks) > 0 && !wrong && (first == nil || m.older(first)) {
			first = m.foundInstance
		}
	}
	chosen := make(map[*askedKey]target)
	oldest := make(map[*askedKey]*foundInstance)
	for _, m := range members {
		for key, t := range m.asks {
			if upstream(m.foundInstance) != wrongUpstream && settings(m.foundInstance) != settings(first) {
				if t.closed = true; !t.restricts() {
					delete(m.asks, key)
					continue
				}
				m.asks[key] = t
			}
			if known := oldest[key]; known == nil || m.older(known) {
				chosen[key], oldest[key] = t, m.foundInstance
			}
		}
	}
	for key, t := range chosen {
		same := func(m member) bool {
			own, asks := m.asks[key]
			return asks && own.ask == t.ask && own.closed == t.closed
		}
		everybody := f.divided[s.name] || !slices.ContainsFunc(members, func(m member) bool { return !same(m) })
		for _, m := range members {
			if m.usable() && (everybody || same(m) && m.profile(f) == oldest[key].profile(f)) {
				t.peers = append(t.peers, m.name)
			}
		}
		t.protocol = "HTTP/1.1"
		if h2c := first != nil && upstream(first) == "h2c"; h2c && key.protocol != "" { // no connection can go there
			if t.closed = true; !t.restricts() {
				delete(chosen, key)
				continue
			}
		} else if h2c {
			t.protocol = "HTTP/2.0"
		}
		chosen[key] = t
	}
	return chosen
}

// A foundRequest is what a client asks.
type foundRequest struct {
	protocol           string // of a connection; "": it is a request
	method, host, path string
	canary, pass       bool
}

// answer returns what a target answers, without the peer: see withoutPeer.
func (t *target) answer(q foundRequest) string {
	switch {
	case t.closed, t.kind == nobodyAsk, t.kind == passAsk && !q.pass:
		return "403"
	case t.kind == redirectAsk:
		return fmt.Sprint("307 by ", t.number)
	}
	return withoutPeer(t.answerOf(t.service + "-"))
}

// answerOf returns what a peer answers.
func (t *target) answerOf(peer string) string {
	if t.askedKey.protocol != "" {
		return peersAnswer("", peer, t.protocol) // it learns nothing of the ask
	}
	return peersAnswer(t.number, peer, t.protocol)
}

// asksPeer reports whether a request gets to a peer.
func (t *target) asksPeer(q foundRequest) bool {
	return !t.closed && (t.kind == openAsk || t.kind == listedAsk || t.kind == passAsk && q.pass)
}

// peersAnswer returns an answer of a peer as text.
func peersAnswer(asked any, peer, protocol string) string {
	return fmt.Sprintf("%d by %v of %s with %s", http.StatusOK, asked, peer, protocol)
}

// withoutPeer returns an answer with the service of the peer in place of the peer.
func withoutPeer(answer string) string {
	answer, _, _ = strings.Cut(answer, "-")
	return answer
}

// winners returns what services in a state have for a request, by a configuration, of the key that
// is tried first. holder is who has what only one of them can have; "": any of them.
func winners(q foundRequest, f *foundFile, services []*foundService, holder map[*askedKey]string) []target {
	asked := make(map[*askedKey][]target)
	for _, s := range services {
		for key, t := range s.targets(f) {
			if key.matches(q) && (holder[key] == "" || holder[key] == s.name) {
				asked[key] = append(asked[key], t)
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	rank := func(a, b *askedKey) int {
		return cmp.Or(cmp.Compare(asked[b][0].priority, asked[a][0].priority), cmp.Compare(len(b.path), len(a.path)), map[bool]int{true: -1, false: 1}[a.canary])
	}
	return asked[slices.MinFunc(slices.Collect(maps.Keys(asked)), rank)]
}

// answers returns which answers a request may get from services in a state, by a configuration.
// While none of the services that share a route has a peer, each keeps its share of the requests.
func answers(q foundRequest, f *foundFile, services []*foundService, holder map[*askedKey]string) map[string]bool {
	all := make(map[string]bool)
	if q.host == movingHost {
		for _, peer := range f.moving.peers(services[0]) {
			all[peersAnswer("the file", peer, "HTTP/1.1")] = true
		}
	} else {
		found := winners(q, f, services, holder)
		if len(found) == 0 {
			return map[string]bool{"404": true}
		}
		served := slices.ContainsFunc(found, func(t target) bool { return len(t.peers) > 0 })
		for _, t := range found {
			if !t.asksPeer(q) {
				all[t.answer(q)] = true
				continue
			}
			if !served {
				all["503"] = true
			}
			for _, peer := range t.peers {
				all[t.answerOf(peer)] = true
			}
		}
	}
	if len(all) == 0 {
		all["503"] = true
	}
	return all
}

// Of services that share a route, each answers by its own options. One that is open has nothing but
// 503 for its share while none of them has a peer.
func TestFoundAnswersOfASharedRoute(t *testing.T) {
	f := &foundFile{dialects: []string{config.DialectFabio}, shares: true}
	service := func(name string, kind askKind, out string) *foundService {
		asked := &ask{askedKey: sharedKey, kind: kind}
		return &foundService{name: name, instances: []foundInstance{{name: name + "-1", asks: []*ask{asked}, out: out}}}
	}
	star := peersAnswer(0, "star-1", "HTTP/1.1")
	for _, test := range []struct {
		star, sun       askKind
		starOut, sunOut string
		want            []string
	}{
		{openAsk, nobodyAsk, "critical", "critical", []string{"403", "503"}},
		{openAsk, closedAsk, "critical", "maintenance", []string{"403", "503"}},
		{openAsk, openAsk, "critical", "critical", []string{"503"}},
		{nobodyAsk, closedAsk, "critical", "critical", []string{"403"}},
		{openAsk, nobodyAsk, "critical", "", []string{"403"}},
		{openAsk, nobodyAsk, "", "", []string{star, "403"}},
		{openAsk, openAsk, "", "critical", []string{star}},
	} {
		got := answers(foundRequest{host: sharedKey.host, path: "/x"}, f,
			[]*foundService{service("star", test.star, test.starOut), service("sun", test.sun, test.sunOut)}, nil)
		verify.Equal(t, fmt.Sprint(slices.Sorted(maps.Keys(got))), fmt.Sprint(test.want), "%+v", test)
	}
}

// passing returns which answers, without their peers, a request may get while services and the
// configuration change. A route may have no peers for a moment, as a pool gets the instances of new
// routes after them, but not the one of the file. A request that comes late to its pool may be at
// any instance of the service, as the group of its route may be gone (see balancer.Pool.Group).
func passing(q foundRequest, files []*foundFile, services [][]*foundService) map[string]bool {
	all := map[string]bool{"503": q.host != movingHost}
	for _, f := range files {
		unasked := 0 // services that have had no route for the request
		for _, states := range services {
			without := false
			for _, s := range withLeft(states) {
				if q.host == movingHost {
					all[withoutPeer(peersAnswer("the file", s.name+"-", ""))] = true
					all["503"] = all["503"] || len(f.moving.peers(s)) == 0
					continue
				}
				found := winners(q, f, []*foundService{s}, nil)
				unnamed := winners(q, f, []*foundService{s}, map[*askedKey]string{anyNameKey: "another one"})
				for _, t := range slices.Concat(found, unnamed) {
					all[t.answer(q)] = true
				}
				without = without || len(found) == 0
			}
			if without {
				unasked++
			}
		}
		if unasked == len(services) {
			all["404"] = true
		}
	}
	return all
}

// withLeft returns the states of a service, each also with the instances of a former one that have
// left: for as long as a pool has them for the routes in use, what they have asked for counts after
// all else.
func withLeft(states []*foundService) []*foundService {
	all := slices.Clone(states)
	for n, s := range states {
		for _, former := range states[:n] {
			with := &foundService{name: s.name, instances: slices.Clone(s.instances)}
			for _, left := range former.instances {
				if !slices.ContainsFunc(s.instances, func(i foundInstance) bool { return i.name == left.name }) {
					left.out, left.registered = "left", math.MaxInt
					with.instances = append(with.instances, left)
				}
			}
			if len(with.instances) > len(s.instances) {
				all = append(all, with)
			}
		}
	}
	return all
}
