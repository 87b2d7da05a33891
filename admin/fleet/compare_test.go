package fleet

import (
	"slices"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// member returns a queried replica with parts as KIND, HASH, …
func member(name, config string, parts ...string) Member {
	m := Member{Name: name, Status: "passing", ConfigHash: config, Parts: make(map[string]string)}
	for ; len(parts) > 0; parts = parts[2:] {
		m.Parts[parts[0]] = parts[1]
	}
	return m
}

func TestConclusions(t *testing.T) {
	pending := member("b", "c1")
	pending.Pending = []string{"listeners"}
	critical := Member{Name: "c", Status: "critical", ConfigHash: "c0", Error: "connection refused"}
	unreachable := Member{Name: "c", Status: "passing", ConfigHash: "c1", Error: "connection refused"}
	stranger := Member{Name: "s", Status: "passing", Error: "not registered by sluice"}
	duplicate := member("a@n", "c0")
	duplicate.Duplicate, duplicate.Parts = true, nil

	for _, c := range []struct {
		name      string
		members   []Member
		err       string
		want      string // true, false, or null
		unknown   []string
		summaries []string // of the differences
	}{
		{name: "one replica", members: []Member{member("a", "c1", PartInstances, "i1")}, want: "true"},
		{name: "the same", members: []Member{member("a", "c1", PartInstances, "i1"), member("b", "c1", PartInstances, "i1")}, want: "true"},
		{name: "not all share orders", members: []Member{member("a", "c1", PartOrders, "o1"), member("b", "c1", PartOrders, "o1"), member("c", "c1")}, want: "true"},
		{name: "other orders", members: []Member{member("a", "c1", PartOrders, "o1"), member("b", "c1", PartOrders, "o2")}, want: "false",
			summaries: []string{"operators' orders differ: a: o1; b: o2"}},
		{name: "two parts", members: []Member{member("a", "c1", PartInstances, "i1", PartRoutes, "r1"), member("b", "c1", PartInstances, "i2", PartRoutes, "r2"), member("c", "c1", PartInstances, "i1", PartRoutes, "r2")}, want: "false",
			summaries: []string{"the instances differ: a, c: i1; b: i2", "the routes differ: b, c: r2; a: r1"}},
		{name: "a part of a later version", members: []Member{member("a", "c1", "x", "1"), member("b", "c1", "x", "2")}, want: "false", summaries: []string{"x differ: a: 1; b: 2"}},
		{name: "another configuration", members: []Member{member("a", "c1"), member("b", "c1"), member("c", "c2")}, want: "false",
			summaries: []string{`the configuration differs: a, b: c1; c: c2`}},
		{name: "one needs a restart", members: []Member{member("a", "c1"), pending}, want: "false",
			summaries: []string{`a restart is needed: a: nothing; b: listeners`}},
		{name: "all need a restart", members: []Member{pending}, want: "false",
			summaries: []string{`a restart is needed: b: listeners`}},
		{name: "one is unreachable", members: []Member{member("a", "c1"), unreachable}, want: "null", unknown: []string{"c"}},
		{name: "one is unreachable, and its meta differs", members: []Member{member("a", "c2"), unreachable}, want: "false", unknown: []string{"c"},
			summaries: []string{`the configuration differs: c: c1; a: c2`}},
		{name: "one is dead", members: []Member{member("a", "c1"), critical}, want: "true"},
		{name: "listed twice", members: []Member{member("a", "c1"), duplicate}, want: "true"},
		{name: "not sluice", members: []Member{member("a", "c1"), stranger}, want: "null", unknown: []string{"s"}},
		{name: "Consul does not answer", members: []Member{member("a", "c1")}, err: "refused", want: "null"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Report{Replicas: c.members, Error: c.err}
			r.conclude()
			got := "null"
			if r.Converged != nil {
				got = map[bool]string{true: "true", false: "false"}[*r.Converged]
			}
			verify.Equal(t, got, c.want, "converged")
			var unknown, summaries []string
			for _, u := range r.Unknown {
				unknown = append(unknown, u.Replica)
			}
			for _, d := range r.Differences {
				summaries = append(summaries, d.Summary)
			}
			verify.That(t, slices.Equal(unknown, c.unknown) && slices.Equal(summaries, c.summaries), "unknown %q, differences\n%q\nwant\n%q", unknown, summaries, c.summaries)
		})
	}
}

func TestHash(t *testing.T) {
	one := Hash([]string{"a", "b"})
	verify.That(t, one == Hash([]string{"b", "a"}) && one != Hash([]string{"a"}) && one != Hash([]string{"ab"}) && Hash(nil) != one, "the order counts, or a text does not")
}

func TestText(t *testing.T) {
	a := discovery.Instance{Service: "star", ID: "a", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1, Tags: []string{"x"}, Meta: map[string]string{"k": "v"}}
	one := Text("s", a)
	verify.That(t, one != Text("t", a), "the service does not count")
	detail := a
	detail.Detail = "200 OK after 3 ms"
	verify.Equal(t, one, Text("s", detail), "it depends on the output of a check")
	for name, change := range map[string]func(*discovery.Instance){
		"id":         func(i *discovery.Instance) { i.ID = "c" },
		"node":       func(i *discovery.Instance) { i.Node = "m" },
		"address":    func(i *discovery.Instance) { i.Address = "10.0.0.2" },
		"port":       func(i *discovery.Instance) { i.Port = 81 },
		"weight":     func(i *discovery.Instance) { i.Weight = 2 },
		"status":     func(i *discovery.Instance) { i.Status = discovery.StatusWarning },
		"tags":       func(i *discovery.Instance) { i.Tags = []string{"x", "y"} },
		"tag":        func(i *discovery.Instance) { i.Tags = []string{"y"} },
		"no tags":    func(i *discovery.Instance) { i.Tags = nil; i.Meta = map[string]string{"k": "v", "x": ""} },
		"meta":       func(i *discovery.Instance) { i.Meta = map[string]string{"k": "w"} },
		"datacenter": func(i *discovery.Instance) { i.Datacenter = "dc2" },
	} {
		changed := a
		change(&changed)
		verify.That(t, one != Text("s", changed), "%s does not count", name)
	}
}
