package fleet

import (
	"slices"
	"testing"

	"sluice/discovery"
)

// member returns a queried replica with services as "NAME=DIGEST@INDEX".
func member(name, config string, services ...Service) Member {
	return Member{Name: name, Status: "passing", ConfigHash: config, Services: append([]Service{}, services...)}
}

// ordered returns a replica with this digest of orders.
func ordered(name, orders string) Member {
	m := member(name, "c1")
	m.Orders = orders
	return m
}

func star(digest string, index uint64) Service {
	return Service{Service: "star", Source: "consul", Digest: digest, Index: index, Instances: 2}
}

func TestConclusions(t *testing.T) {
	pending := member("b", "c1", star("d1", 7))
	pending.Pending = []string{"listeners"}
	critical := Member{Name: "c", Status: "critical", ConfigHash: "c0", Error: "connection refused"}
	unreachable := Member{Name: "c", Status: "passing", ConfigHash: "c1", Error: "connection refused"}
	stranger := Member{Name: "s", Status: "passing", Error: "not registered by sluice"}
	duplicate := member("a@n", "c0")
	duplicate.Duplicate, duplicate.Services = true, nil
	other := star("d2", 900)
	other.Source = "consul, dc2"
	static := Service{Service: "static", Source: "static", Digest: "d1", Instances: 1}
	changed := static
	changed.Digest, changed.Instances = "d2", 2

	for _, c := range []struct {
		name    string
		members []Member
		err     string
		want    string // true, false, or null
		unknown []string
		// of the differences
		summaries []string
		behind    []string
	}{
		{name: "orders", members: []Member{ordered("a", "o1"), ordered("b", "o1"), ordered("c", "")}, want: "true"},
		{name: "other orders", members: []Member{ordered("a", "o1"), ordered("b", "o2")}, want: "false", summaries: []string{"operators' orders differ: a: o1; b: o2"}},
		{name: "one replica", members: []Member{member("a", "c1", star("d1", 7))}, want: "true"},
		{name: "the same", members: []Member{member("a", "c1", star("d1", 7)), member("b", "c1", star("d1", 7))}, want: "true"},
		{name: "an index that moved for nothing", members: []Member{member("a", "c1", star("d1", 7)), member("b", "c1", star("d1", 70))}, want: "true"},
		{
			name: "one behind", members: []Member{member("a", "c1", star("d1", 9)), member("b", "c1", star("d0", 7)), member("c", "c1", star("d1", 8))}, want: "false",
			summaries: []string{`the instances of "star" differ: a, c: instances 2 at index 9; b: instances 2 at index 7; behind: b`}, behind: []string{"b"},
		},
		{
			name: "another source", members: []Member{member("a", "c1", star("d1", 9)), member("b", "c1", other)}, want: "false",
			summaries: []string{`the instances of "star" differ: b: instances 2 at index 900; a: instances 2 at index 9`},
		},
		{
			name: "static", members: []Member{member("a", "c1", static), member("b", "c1", changed)}, want: "false",
			summaries: []string{`the instances of "static" differ: a: instances 1; b: instances 2`},
		},
		{
			name: "another configuration", members: []Member{member("a", "c1"), member("b", "c1"), member("c", "c2")}, want: "false",
			summaries: []string{`the configuration differs: a, b: c1; c: c2`},
		},
		{
			name: "a service less", members: []Member{member("a", "c1", star("d1", 7)), member("b", "c1")}, want: "false",
			summaries: []string{`not all have the service "star": a: instances 2 at index 7; b: missing`},
		},
		{
			name: "one needs a restart", members: []Member{member("a", "c1", star("d1", 7)), pending}, want: "false",
			summaries: []string{`a restart is needed: a: nothing; b: listeners`},
		},
		{
			name: "all need a restart", members: []Member{pending}, want: "false",
			summaries: []string{`a restart is needed: b: listeners`},
		},
		{name: "one is unreachable", members: []Member{member("a", "c1"), unreachable}, want: "null", unknown: []string{"c"}},
		{
			name: "one is unreachable, and its meta differs", members: []Member{member("a", "c2"), unreachable}, want: "false", unknown: []string{"c"},
			summaries: []string{`the configuration differs: c: c1; a: c2`},
		},
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
			if got != c.want {
				t.Errorf("converged %s, want %s", got, c.want)
			}
			var unknown, summaries, behind []string
			for _, u := range r.Unknown {
				unknown = append(unknown, u.Replica)
			}
			for _, d := range r.Differences {
				summaries = append(summaries, d.Summary)
				behind = append(behind, d.Behind...)
			}
			if !slices.Equal(unknown, c.unknown) || !slices.Equal(summaries, c.summaries) || !slices.Equal(behind, c.behind) {
				t.Errorf("unknown %q, behind %q, differences\n%q\nwant\n%q", unknown, behind, summaries, c.summaries)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	a := discovery.Instance{Service: "star", ID: "a", Node: "n", Address: "10.0.0.1", Port: 80, Weight: 1, Tags: []string{"x"}, Meta: map[string]string{"k": "v"}}
	b := a
	b.ID = "b"
	one := Digest([]discovery.Instance{a, b})
	if one != Digest([]discovery.Instance{b, a}) {
		t.Error("the digest depends on the order")
	}
	detail := a
	detail.Detail = "200 OK after 3 ms"
	if one != Digest([]discovery.Instance{detail, b}) {
		t.Error("the digest depends on the output of a check")
	}
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
		if one == Digest([]discovery.Instance{changed, b}) {
			t.Errorf("%s does not count", name)
		}
	}
	if Digest(nil) == one || Digest(nil) != Digest([]discovery.Instance{}) {
		t.Error("the empty set")
	}
}
