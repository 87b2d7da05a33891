package chain

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/balancer"
	"sluice/config"
	"sluice/config/units"
	"sluice/consul/mesh"
	consulsource "sluice/discovery/consul"
	"sluice/route"
	"sluice/test/verify"
)

// web returns the service web of the configuration, as changed.
func web(change ...func(*config.Service)) config.Service {
	s := config.DefaultService()
	s.Consul = &config.ConsulService{ServiceOptions: consulsource.ServiceOptions{Service: "web", Connect: true}}
	for _, c := range change {
		c(&s)
	}
	return s
}

// target returns the target of an id such as "v1.web": a subset of a service of the chain's data
// centre.
func target(id string) mesh.Target {
	subset, service, ok := strings.Cut(id, ".")
	if !ok {
		subset, service = "", id
	}
	t := mesh.Target{Service: service, ServiceSubset: subset, Namespace: "default", Partition: "default", Datacenter: "dc1",
		SNI: id + ".default.dc1.internal.td.consul"}
	if subset != "" {
		t.Subset = api.ServiceResolverSubset{Filter: "Service.Meta.version == " + subset}
	}
	return t
}

// chainOf returns a chain for web that begins with start and has resolvers, each with its target.
func chainOf(start mesh.Node, resolvers ...string) *mesh.Compiled {
	c := &mesh.Compiled{ServiceName: "web", Namespace: "default", Partition: "default", Datacenter: "dc1", Protocol: "http",
		StartNode: "start", Nodes: map[string]mesh.Node{"start": start}, Targets: make(map[string]mesh.Target)}
	for _, id := range resolvers {
		c.Nodes[id] = mesh.Node{Type: mesh.NodeResolver, Name: id, Resolver: &mesh.Resolver{Target: id, ConnectTimeout: defaultConnectTimeout}}
		c.Targets[id] = target(id)
	}
	return c
}

// routerOf returns a chain with a router of these routes to v1.web, and the default route to web.
func routerOf(routes ...mesh.RouteDefinition) *mesh.Compiled {
	n := mesh.Node{Type: mesh.NodeRouter, Name: "web.default.default"}
	for _, r := range routes {
		n.Routes = append(n.Routes, mesh.CompiledRoute{Definition: r, NextNode: "v1.web"})
	}
	n.Routes = append(n.Routes, mesh.CompiledRoute{NextNode: "web"})
	return chainOf(n, "web", "v1.web")
}

// resolverOf returns a chain with one resolver for web, as changed.
func resolverOf(change func(n *mesh.Node, c *mesh.Compiled)) *mesh.Compiled {
	c := chainOf(mesh.Node{}, "web", "v1.web", "standby")
	n := c.Nodes["web"]
	change(&n, c)
	c.Nodes["web"], c.StartNode = n, "web"
	return c
}

func translate(t *testing.T, s config.Service, c *mesh.Compiled) Result {
	t.Helper()
	r, err := Translate("web", s, "", c)
	verify.Require(t, err == nil, "%v", err)
	return r
}

// A start node that is a resolver is the service itself, and there is no chain.
func TestSettingsOfResolvers(t *testing.T) {
	hash := func(keys ...string) func(*config.Service) {
		return func(s *config.Service) {
			s.Balance.Policy = "hash"
			for _, k := range keys {
				key, _ := route.ParseHashKey(k)
				s.Balance.Hash.Keys = append(s.Balance.Hash.Keys, config.HashKey{Text: k, Value: key})
			}
		}
	}
	lb := func(lb mesh.LoadBalancer) func(*mesh.Node, *mesh.Compiled) {
		return func(n *mesh.Node, _ *mesh.Compiled) { n.LoadBalancer = &lb }
	}
	policy := func(name balancer.Policy) func(*config.Service) {
		return func(s *config.Service) { s.Balance.Policy = name }
	}
	for _, test := range []struct {
		change   func(*mesh.Node, *mesh.Compiled)
		own      func(*config.Service)
		want     func(*config.Service)
		problems []string
	}{
		{change: func(n *mesh.Node, _ *mesh.Compiled) { n.Resolver.ConnectTimeout = mesh.Duration(2 * time.Second) },
			want: func(s *config.Service) { s.Timeouts.Connect = 2 * time.Second }},
		{change: func(n *mesh.Node, _ *mesh.Compiled) { n.Resolver.ConnectTimeout = mesh.Duration(time.Hour) },
			want: func(s *config.Service) { s.Timeouts.Connect = 10 * time.Minute }},
		{change: func(n *mesh.Node, _ *mesh.Compiled) { n.Resolver.ConnectTimeout = mesh.Duration(2 * time.Second) },
			own:  func(s *config.Service) { s.Timeouts.Connect = 3 * time.Second },
			want: func(s *config.Service) { s.Timeouts.Connect = 3 * time.Second }},
		{change: func(n *mesh.Node, _ *mesh.Compiled) { n.Resolver.RequestTimeout = mesh.Duration(7 * time.Second) },
			want: func(s *config.Service) { s.Timeouts.ResponseHeader = 7 * time.Second }},
		{change: func(n *mesh.Node, _ *mesh.Compiled) { n.Resolver.RequestTimeout = -1 },
			want: func(s *config.Service) { s.Timeouts.ResponseHeader = 24 * time.Hour }},
		{change: func(_ *mesh.Node, c *mesh.Compiled) { c.Protocol = "grpc" },
			want: func(s *config.Service) { s.Upstream.Protocol = "h2" }},
		{change: func(_ *mesh.Node, c *mesh.Compiled) { c.Protocol = "http2" },
			want: func(s *config.Service) { s.Upstream.Protocol = "h2" }},
		{change: func(_ *mesh.Node, c *mesh.Compiled) { c.Protocol = "tcp" }},

		{change: lb(mesh.LoadBalancer{})},
		{change: lb(mesh.LoadBalancer{Policy: "random"}), want: policy("random")},
		{change: lb(mesh.LoadBalancer{Policy: "round_robin"}), want: policy("round_robin")},
		{change: lb(mesh.LoadBalancer{Policy: "round_robin"}), own: policy("sticky"), want: policy("sticky")},
		{change: lb(mesh.LoadBalancer{Policy: "least_request", LeastRequestConfig: &api.LeastRequestConfig{ChoiceCount: 3}}), want: policy("least_conn"),
			problems: []string{"service-resolver web: least_request_config.choice_count is not carried out"}},
		{change: lb(mesh.LoadBalancer{Policy: "fastest"}), problems: []string{`service-resolver web: the load-balancer policy "fastest" is not carried out`}},
		{change: lb(mesh.LoadBalancer{Policy: "maglev"}), want: policy("random")},
		{change: lb(mesh.LoadBalancer{Policy: "ring_hash", RingHashConfig: &api.RingHashConfig{MaximumRingSize: 9}, HashPolicies: []mesh.HashPolicy{{SourceIP: true}}}),
			want: hash("client_address"), problems: []string{"service-resolver web: ring_hash_config is not carried out: sluice has no ring of a size"}},
		{change: lb(mesh.LoadBalancer{Policy: "maglev", HashPolicies: []mesh.HashPolicy{
			{Field: "header", FieldValue: "X-User", Terminal: true}, {Field: "cookie", FieldValue: "Id", Terminal: true}, {Field: "query_parameter", FieldValue: "q"},
		}}), want: hash("header x-user", "cookie Id", "query q")},
		{change: lb(mesh.LoadBalancer{Policy: "maglev", HashPolicies: []mesh.HashPolicy{
			{Field: "cookie", FieldValue: "a", CookieConfig: &struct{}{}}, {SourceIP: true, Terminal: true}, {Field: "path"},
		}}), want: hash("cookie a", "client_address"), problems: []string{
			"service-resolver web: hash_policies[0] is not terminal: sluice hashes the first of hash_policies that a request has, and not several together",
			"service-resolver web: hash_policies[0].cookie_config is not carried out: sluice does not set the cookie",
			`service-resolver web: hash_policies[2] is not carried out: field "path", field_value ""`,
		}},
		{change: lb(mesh.LoadBalancer{Policy: "maglev", HashPolicies: []mesh.HashPolicy{{SourceIP: true}}}),
			own:      func(s *config.Service) { s.Balance.Subset.Size = 3 },
			want:     func(s *config.Service) { s.Balance.Subset.Size = 3 },
			problems: []string{`service-resolver web: the load-balancer policy "maglev" is not carried out with balance.subset`}},

		{change: func(n *mesh.Node, c *mesh.Compiled) {
			n.Resolver.Failover = &mesh.Failover{Targets: []string{"v1.web", "standby", "v1.web"}, Policy: &api.ServiceResolverFailoverPolicy{Mode: "order-by-locality"}}
			east := c.Targets["standby"]
			east.Datacenter, east.MeshGateway.Mode, east.Namespace, east.Partition = "dc2", "local", "ops", "west"
			c.Targets["standby"] = east
			own := c.Targets["web"]
			own.PrioritizeByLocality, own.MeshGateway.Mode, own.External = &api.ServiceResolverPrioritizeByLocality{Mode: "failover"}, "sideways", true
			c.Targets["web"] = own
			c.EnvoyExtensions = []mesh.EnvoyExtension{{Name: "builtin/lua"}}
		}, want: func(s *config.Service) {
			s.Consul.Targets = []consulsource.Target{
				{Service: "web", SNI: "web.default.dc1.internal.td.consul", External: true},
				{Service: "web", Subset: "v1", Filter: "Service.Meta.version == v1", SNI: "v1.web.default.dc1.internal.td.consul"},
				{Service: "standby", Datacenter: "dc2", Gateway: "local", Namespace: "ops", Partition: "west", SNI: "standby.default.dc1.internal.td.consul"},
			}
		}, problems: []string{
			`service-defaults web: mesh_gateway.mode "sideways" is not carried out`,
			`service-resolver web: the failover policy "order-by-locality" is not carried out: the targets stand in in their order`,
			`service-resolver web: prioritize_by_locality "failover" is not carried out`,
			`service-defaults web: the extension of Envoy "builtin/lua" is not carried out`,
		}},
		{change: func(n *mesh.Node, c *mesh.Compiled) {
			n.Resolver.Target = "peered"
			c.Targets["peered"] = mesh.Target{Service: "web", Namespace: "default", Partition: "default", Peer: "east", Subset: api.ServiceResolverSubset{OnlyPassing: true}}
		}, want: func(s *config.Service) {
			s.Consul.Targets = []consulsource.Target{{Service: "web", Peer: "east", OnlyPassing: true}}
		}},
	} {
		own := web()
		if test.own != nil {
			test.own(&own)
		}
		r := translate(t, own, resolverOf(test.change))
		want := web()
		want.Consul.Targets = []consulsource.Target{{Service: "web", SNI: "web.default.dc1.internal.td.consul"}}
		if test.want != nil {
			test.want(&want)
		}
		verify.DeepEqual(t, r.Service, want, "the service")
		verify.Slices(t, r.Problems, test.problems, "problems")
		verify.That(t, len(r.Derived) == 0 && slices.Contains(r.Entries, "service-resolver web"), "%+v", r)
	}
}

// A target has the data centre only if the agent is in another one.
func TestChainsOfAnotherDatacenter(t *testing.T) {
	r, err := Translate("web", web(), "dc1", resolverOf(func(*mesh.Node, *mesh.Compiled) {}))
	verify.NoError(t, err)
	verify.Equal(t, r.Service.Consul.Targets[0].Datacenter, "dc1", "data centre")
}

func TestRoutesOfRouters(t *testing.T) {
	http := func(m mesh.HTTPMatch) mesh.RouteDefinition {
		return mesh.RouteDefinition{Match: &mesh.RouteMatch{HTTP: &m}}
	}
	to := func(d mesh.RouteDestination) mesh.RouteDefinition { return mesh.RouteDefinition{Destination: &d} }
	when := func(c route.Conditions) *config.Conditions { return &config.Conditions{More: &c} }
	present := func(name string) route.Value { return route.Value{Name: name, Kind: route.ValuePresent} }
	regular := func(name, text string) route.Value {
		return route.Value{Name: name, Kind: route.ValueMatches, Text: text}
	}
	five, two, day, month, second := 5, 2, 24*time.Hour, 720*time.Hour, time.Second
	const default_, first = "service-router web, its default route: ", "service-router web, route 1: "
	const out = first + "left out, so that its requests go to a later route: "
	for _, test := range []struct {
		from     mesh.RouteDefinition
		want     func(*config.Branch) // nil: the route is left out
		problems []string
	}{
		{from: mesh.RouteDefinition{}, want: func(*config.Branch) {}},
		{from: http(mesh.HTTPMatch{}), want: func(*config.Branch) {}},
		{from: http(mesh.HTTPMatch{PathExact: "/a"}), want: func(b *config.Branch) { b.Route.Path, b.Route.Match = "/a", "exact" }},
		{from: http(mesh.HTTPMatch{PathPrefix: "/a", CaseInsensitive: true}), want: func(b *config.Branch) { b.Route.Path, b.Route.Match, b.IgnoreCase = "/a", "string_prefix", true }},
		{from: http(mesh.HTTPMatch{PathRegex: "/a|b", CaseInsensitive: true}), want: func(b *config.Branch) { b.Route.Path, b.Route.Match = "^(?:/a|b)$", "regexp" }},
		{from: http(mesh.HTTPMatch{PathRegex: "a)(b"}), problems: []string{out + "path_regex: \"a)(b\" is not a regular expression that Go accepts: error parsing regexp: unexpected ): `a)(b`"}},
		{from: http(mesh.HTTPMatch{PathPrefix: "a"}), problems: []string{out + `path: value "a": is missing; "/" matches every path`}},
		{from: http(mesh.HTTPMatch{PathPrefix: "/a", PathExact: "/b"}), problems: []string{out + "more than one of path_exact, path_prefix and path_regex"}},
		{from: http(mesh.HTTPMatch{Methods: []string{"GET", "PUT"}}), want: func(b *config.Branch) { b.Route.Methods = []string{"GET", "PUT"} }},
		{from: http(mesh.HTTPMatch{Methods: []string{"GET "}}), problems: []string{out + `method "GET "`}},
		{from: http(mesh.HTTPMatch{Header: []mesh.ValueMatch{
			{Name: "X-A", Present: true}, {Name: "x-a", Exact: "*"}, {Name: "x-b", Prefix: "a."}, {Name: "x-b", Suffix: "b+"}, {Name: "x-c", Regex: "a|b"},
		}}), want: func(b *config.Branch) {
			b.Route.When = when(route.Conditions{Headers: []route.Value{
				present("x-a"), {Name: "x-a", Text: "*"}, regular("x-b", `^a\.`), regular("x-b", `b\+$`), regular("x-c", "^(?:a|b)$"),
			}})
		}},
		{from: http(mesh.HTTPMatch{Header: []mesh.ValueMatch{{Name: "x-a", Present: true, Invert: true}, {Name: "x-b", Exact: "1", Invert: true}}}), want: func(b *config.Branch) {
			b.Route.When = when(route.Conditions{Headers: []route.Value{present("x-b")},
				Not: &route.Conditions{Headers: []route.Value{present("x-a"), {Name: "x-b", Text: "1"}}}})
		}},
		{from: http(mesh.HTTPMatch{Header: []mesh.ValueMatch{{Name: "x-a"}}}), problems: []string{out + `header "x-a": not exactly one of present, exact, prefix, suffix and regex`}},
		{from: http(mesh.HTTPMatch{Header: []mesh.ValueMatch{{Name: "x a", Present: true}}}), problems: []string{out + `when.header.x a: value "x a": is not a valid name`}},
		{from: http(mesh.HTTPMatch{Header: []mesh.ValueMatch{{Name: "x", Regex: `\C`}}}), problems: []string{out + "header \"x\": \"\\\\C\" is not a regular expression that Go accepts: error parsing regexp: invalid escape sequence: `\\C`"}},
		{from: http(mesh.HTTPMatch{QueryParam: []mesh.ValueMatch{{Name: "a", Present: true}, {Name: "b", Exact: "1"}, {Name: "c", Regex: "x"}}}), want: func(b *config.Branch) {
			b.Route.When = when(route.Conditions{Queries: []route.Value{present("a"), {Name: "b", Text: "1"}, regular("c", "^(?:x)$")}})
		}},
		{from: http(mesh.HTTPMatch{QueryParam: []mesh.ValueMatch{{Name: "a", Suffix: "x"}}}), problems: []string{out + `query_param "a": a condition that parameters of the query do not have`}},

		{from: to(mesh.RouteDestination{RequestTimeout: mesh.Duration(time.Second), IdleTimeout: mesh.Duration(time.Millisecond)}), want: func(b *config.Branch) {
			ms := time.Millisecond
			b.Route.Timeouts = &config.RouteTimeouts{ResponseHeader: &second, Idle: &ms, Tunnel: &second}
		}},
		{from: to(mesh.RouteDestination{RequestTimeout: -1, IdleTimeout: -1}), want: func(b *config.Branch) {
			b.Route.Timeouts = &config.RouteTimeouts{ResponseHeader: &day, Idle: &day, Tunnel: &month}
		}},
		{from: to(mesh.RouteDestination{RetryOnConnectFailure: true}), want: func(b *config.Branch) { b.Route.Retry = &config.RouteRetry{Attempts: &two} }},
		{from: to(mesh.RouteDestination{NumRetries: 9, RetryOn: []string{"reset", "5xx", "5xx", "refused-stream"}, RetryOnStatusCodes: []uint32{503}}),
			want: func(b *config.Branch) { b.Route.Retry = &config.RouteRetry{Attempts: &five} }, problems: []string{
				first + `retry_on "5xx" is not carried out: an answer of a peer is passed on with any status`,
				first + "retry_on_status_codes is not carried out: an answer of a peer is passed on with any status",
				first + "num_retries 9: sluice tries at most 4 times again",
			}},
		{from: mesh.RouteDefinition{Match: &mesh.RouteMatch{HTTP: &mesh.HTTPMatch{PathPrefix: "/a/"}}, Destination: &mesh.RouteDestination{PrefixRewrite: "/b/"}},
			want: func(b *config.Branch) {
				b.Route.Path, b.Route.Match, b.PrefixRewrite = "/a/", "string_prefix", "/b/"
			}},
		{from: mesh.RouteDefinition{Match: &mesh.RouteMatch{HTTP: &mesh.HTTPMatch{PathPrefix: "/a"}}, Destination: &mesh.RouteDestination{PrefixRewrite: "b"}},
			want:     func(b *config.Branch) { b.Route.Path, b.Route.Match = "/a", "string_prefix" },
			problems: []string{first + `prefix_rewrite: value "b": must start with a slash`}},
		{from: to(mesh.RouteDestination{
			RequestHeaders: &api.HTTPHeaderModifiers{
				Set:    map[string]string{"x-a": "$1 %% %%", "Host": "h", "x-real-ip": "1.2.3.4", "x-b": "%PROTOCOL%"},
				Add:    map[string]string{"X-A": "lost", "x-c": "c"},
				Remove: []string{"x-a", "x-c", "x-d", "X-D", "connection"},
			},
			ResponseHeaders: &api.HTTPHeaderModifiers{Add: map[string]string{"x-e": "e"}},
		}), want: func(b *config.Branch) {
			b.Route.RequestHeaders = &config.HeaderEdits{Set: map[string]config.Secret{"x-a": units.NewSecret("$$1 % %")}, Add: map[string]config.Secret{"x-c": units.NewSecret("c")}, Remove: []string{"x-c", "x-d"}}
			b.Route.ResponseHeaders = &config.HeaderEdits{Set: map[string]config.Secret{}, Add: map[string]config.Secret{"x-e": units.NewSecret("e")}}
		}, problems: []string{
			first + `request_headers.set.Host: cannot be edited: it is edited by host_header`,
			first + `request_headers.set.x-b: "%PROTOCOL%" is not carried out: sluice has no variables of Envoy`,
			first + `request_headers.set.x-real-ip: value "***": a document cannot set this: want another field: only the file sets fields that say who the client is`,
			first + `request_headers.remove: value "connection": cannot be edited: it belongs to one connection`,
		}},
		{from: to(mesh.RouteDestination{RequestHeaders: &api.HTTPHeaderModifiers{}}), want: func(*config.Branch) {}},
	} {
		r := translate(t, web(), routerOf(test.from))
		verify.Slices(t, r.Problems, test.problems, "problems")
		branches := r.Service.Chain
		rest := branches[len(branches)-1]
		verify.That(t, rest.Route.Service == "web" && rest.Route.Path == "/" && rest.Origin+": " == default_, "the last branch: %+v", rest)
		if test.want == nil {
			verify.That(t, len(branches) == 1, "not left out: %+v", branches)
			continue
		}
		want := config.Branch{Route: config.Route{Path: "/", Match: "prefix", Service: "web@v1"}, Origin: strings.TrimSuffix(first, ": ")}
		test.want(&want)
		err := want.Check()
		verify.That(t, err == nil && len(branches) == 2, "%v; branches %+v", err, branches)
		// What the table makes of the conditions has no other meaning than they have.
		verify.DeepEqual(t, plain(branches[0]), plain(want), "the branch")
		verify.Equal(t, branches[0].Route.Key(), want.Route.Key(), "its requests")
	}
}

// plain returns the fields of a branch that are a part of its text.
func plain(b config.Branch) map[string]any {
	fields := map[string]any{"IgnoreCase": b.IgnoreCase, "PrefixRewrite": b.PrefixRewrite, "Key": b.Key, "Splitter": b.Splitter, "Origin": b.Origin}
	add := func(in reflect.Value) {
		for i := range in.NumField() {
			if f := in.Type().Field(i); f.IsExported() && !f.Anonymous {
				fields[f.Name] = in.Field(i).Interface()
			}
		}
	}
	add(reflect.ValueOf(b.Route))
	add(reflect.ValueOf(b.Route.Actions))
	return fields
}

func TestSplitters(t *testing.T) {
	splits := []mesh.CompiledSplit{
		{NextNode: "web", Weight: 90}, {NextNode: "v1.web", Weight: 9.99, Definition: mesh.SplitDefinition{RequestHeaders: &api.HTTPHeaderModifiers{Set: map[string]string{"x": "1", "via": "2"}}}},
		{NextNode: "web2", Weight: 0},
	}
	c := chainOf(mesh.Node{Type: mesh.NodeSplitter, Name: "web.default.default", Splits: splits}, "web", "v1.web", "web2")
	r := translate(t, web(), c)
	verify.That(t, len(r.Service.Chain) == 1, "branches %+v", r.Service.Chain)
	b := r.Service.Chain[0]
	verify.That(t, b.Origin == "service-splitter web" && b.Splitter == "web.default.default" && b.Key == (route.SplitKey{}), "branch %+v", b)
	var parts []string
	for _, p := range b.Route.Parts {
		parts = append(parts, fmt.Sprintf("%s %.4f %s", p.Route.Service, p.Share, p.Route.Origin))
	}
	verify.Slices(t, parts, []string{"web 0.9001 service-splitter web, split 1", "web@v1 0.0999 service-splitter web, split 2", "web@web2 0.0000 service-splitter web, split 3"}, "parts")
	verify.DeepEqual(t, b.Route.Parts[1].Route.RequestHeaders.Set, map[string]config.Secret{"x": units.NewSecret("1")}, "edits")
	verify.Slices(t, r.Problems, []string{"service-splitter web, split 2: request_headers.set.via: cannot be edited: it shows sluice that a request comes back"}, "problems")
	verify.Slices(t, r.Entries, []string{"service-resolver web", "service-resolver web2", "service-splitter web"}, "entries")

	// The split of the configuration has precedence, and only the resolver remains.
	own := web(func(s *config.Service) {
		s.Split = config.Split{"canary": {Text: "5%", Value: config.Portion{Share: .05}}}
		s.Judge = &config.Judge{}
	})
	r = translate(t, own, c)
	verify.That(t, len(r.Service.Chain) == 0 && len(r.Derived) == 0 && len(r.Service.Split) == 1 && r.Service.Judge != nil, "%+v", r.Service)
	verify.Equal(t, r.Problems[len(r.Problems)-1], "service-splitter web: not used: services.web.split of the configuration has precedence", "problem")

	// Without a resolver of its own, the service has all its instances.
	c = chainOf(mesh.Node{Type: mesh.NodeSplitter, Name: "web.default.default", Splits: []mesh.CompiledSplit{{NextNode: "v1.web", Weight: 50}, {NextNode: "v2.web", Weight: 50}}}, "v1.web", "v2.web")
	c.Protocol = "grpc"
	r = translate(t, web(), c)
	verify.DeepEqual(t, r.Service.Consul.Targets, []consulsource.Target{{Service: "web", SNI: "web.default.dc1.internal.td.consul"}}, "targets")
	verify.Slices(t, slices.Sorted(maps.Keys(r.Derived)), []string{"web@v1", "web@v2"}, "derived")
	verify.That(t, r.Derived["web@v1"].Upstream.Protocol == "h2" && r.Service.Upstream.Protocol == "h2", "protocols")
}

// Behind a router, the service has all its instances, whatever the default subset is.
func TestTheServiceItself(t *testing.T) {
	c := routerOf(mesh.RouteDefinition{})
	c.Nodes["start"].Routes[1].NextNode = "v1.web" // the default subset
	for range 2 {
		r := translate(t, web(), c)
		verify.That(t, r.Service.Consul.Targets[0].Subset == "" && r.Derived["web@v1"].Consul.Targets[0].Subset == "v1", "%+v", r)
		delete(c.Nodes, "web")
		c.Nodes["start"].Routes[0].NextNode = "v1.web"
	}
}

func TestNamesOfServices(t *testing.T) {
	c := chainOf(mesh.Node{}, "web")
	tr := &translation{Compiled: c, name: "shop", taken: make(map[string]bool)}
	for _, test := range []struct {
		change func(*mesh.Target)
		want   string
	}{
		{func(t *mesh.Target) { t.ServiceSubset = "v1" }, "shop@v1"},
		{func(t *mesh.Target) { t.Service = "v1" }, "shop@v1.2"},
		{func(t *mesh.Target) { t.Service, t.ServiceSubset = "api", "v1" }, "shop@api.v1"},
		{func(t *mesh.Target) { t.Datacenter = "dc2" }, "shop@web.dc2"},
		{func(t *mesh.Target) { t.ServiceSubset, t.Datacenter = "v1", "dc2" }, "shop@web.v1.dc2"},
		{func(t *mesh.Target) { t.Namespace, t.Partition = "ns", "p" }, "shop@web.ns.p"},
		{func(t *mesh.Target) { t.Peer, t.Datacenter = "east", "" }, "shop@web.east"},
		{func(t *mesh.Target) { t.Service = "a/b ü" }, "shop@a-b--"},
		{func(t *mesh.Target) { t.Service = strings.Repeat("x", 300) }, "shop@" + strings.Repeat("x", 128)},
	} {
		from := target("web")
		test.change(&from)
		verify.Equal(t, tr.newName(from), test.want, "name")
	}
}

// Chains that Consul does not compile are refused as a whole.
func TestChainsThatCannotBeUsed(t *testing.T) {
	many := func(n int) []mesh.CompiledSplit {
		splits := make([]mesh.CompiledSplit, n)
		for i := range splits {
			splits[i] = mesh.CompiledSplit{NextNode: "web", Weight: 1}
		}
		return splits
	}
	split := func(n ...mesh.CompiledSplit) *mesh.Compiled {
		return chainOf(mesh.Node{Type: mesh.NodeSplitter, Name: "web", Splits: n}, "web")
	}
	wide := func() *mesh.Compiled {
		var names []string
		var splits []mesh.CompiledRoute
		for i := range maxServices + 1 {
			names = append(names, fmt.Sprint("s", i))
			splits = append(splits, mesh.CompiledRoute{NextNode: names[i]})
		}
		return chainOf(mesh.Node{Type: mesh.NodeRouter, Routes: splits}, names...)
	}
	// A router of many routes to one splitter, and resolvers with the same targets, are small as
	// Consul writes them.
	broad := chainOf(mesh.Node{Type: mesh.NodeRouter, Name: "web"}, "web")
	broad.Nodes["split"] = mesh.Node{Type: mesh.NodeSplitter, Name: "web", Splits: many(maxParts)}
	broad.Nodes["start"] = mesh.Node{Type: mesh.NodeRouter, Name: "web", Routes: slices.Repeat([]mesh.CompiledRoute{{NextNode: "split"}}, maxBranches)}
	var expressions []mesh.RouteDefinition
	for i := range 6 {
		expressions = append(expressions, mesh.RouteDefinition{Match: &mesh.RouteMatch{HTTP: &mesh.HTTPMatch{PathRegex: fmt.Sprintf("/%d%s", i, strings.Repeat("a?", 900))}}})
	}
	for want, c := range map[string]*mesh.Compiled{
		`the branches have more than 16384 splits: want at most 16384`: broad,
		`the chain names more than 1024 targets: want at most 1024`: resolverOf(func(n *mesh.Node, _ *mesh.Compiled) {
			n.Resolver.Failover = &mesh.Failover{Targets: slices.Repeat([]string{"web"}, maxTargets)}
		}),
		`the regular expressions of service-router web have more than 10000 parts together, which a request may have to try: want at most 10000`: routerOf(expressions...),
		`the chain has no node ""`:                                             {},
		`the chain has no node "gone"`:                                         {StartNode: "gone"},
		`the chain has no router, splitter or resolver "start"`:                chainOf(mesh.Node{Type: "teapot"}),
		`the chain has no resolver "start"`:                                    chainOf(mesh.Node{Type: mesh.NodeResolver}),
		`the chain has no target "gone"`:                                       chainOf(mesh.Node{Type: mesh.NodeResolver, Resolver: &mesh.Resolver{Target: "gone"}}),
		`the chain has no target "lost"`:                                       resolverOf(func(n *mesh.Node, _ *mesh.Compiled) { n.Resolver.Failover = &mesh.Failover{Targets: []string{"lost"}} }),
		`the chain has no splitter or resolver "start"`:                        chainOf(mesh.Node{Type: mesh.NodeRouter, Routes: []mesh.CompiledRoute{{NextNode: "start"}}}),
		`the chain has no resolver "start" `:                                   split(mesh.CompiledSplit{NextNode: "start", Weight: 100}),
		`service-splitter web gives no share to anything`:                      split(mesh.CompiledSplit{NextNode: "web", Weight: -5}),
		`service-splitter web has 257 splits: want at most 256`:                split(many(257)...),
		`service-router web has 1025 routes: want at most 1024`:                chainOf(mesh.Node{Type: mesh.NodeRouter, Routes: make([]mesh.CompiledRoute, 1025)}, "web"),
		`the chain leads to more than 256 sets of instances: want at most 256`: wide(),
	} {
		_, err := Translate("web", web(), "", c)
		verify.That(t, err != nil && err.Error() == strings.TrimSpace(want), "got %v, want %s", err, want)
	}
}
