package chain

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/config"
	"sluice/consul/mesh"
	consulsource "sluice/discovery/consul"
	"sluice/route"
	"sluice/tags"
)

// Limits of what one chain becomes.
const (
	maxServices = 256
	maxTargets  = 1024 // of all services
	maxBranches = 1024
	maxParts    = 256       // of a splitter
	maxAllParts = 16 * 1024 // of all branches
	maxRegexps  = 10_000    // parts of the regular expressions of all branches, as those that tags of a service ask for
	maxProblems = 1000      // the others are counted
)

// Result is what a chain makes of a service.
type Result struct {
	// Service is the service with its targets and its chain. The others are Derived: resolvers that
	// the chain leads to besides, each by a name that no file can give.
	Service config.Service
	Derived map[string]config.Service
	Entries []string // the config entries that apply, such as "service-router web"
	// Problems say what is not carried out, each on one line that names the entry.
	Problems []string
}

// Translate returns what a chain makes of a service of a name in the configuration. datacenter is
// the one that Consul was asked for the chain; empty: the agent's. An error says why the chain
// cannot be used at all.
func Translate(name string, s config.Service, datacenter string, c *mesh.Compiled) (Result, error) {
	t := &translation{
		Compiled: c, name: name, service: s, entries: make(map[string]bool), names: make(map[string]string), taken: make(map[string]bool), parts: make(map[string][]config.Part),
		result: Result{Derived: make(map[string]config.Service)},
	}
	if datacenter == "" {
		t.local = c.Datacenter
	}
	if err := t.translate(); err != nil {
		return Result{}, err
	}
	t.result.Entries = slices.Sorted(maps.Keys(t.entries))
	if hidden := len(t.result.Problems) - maxProblems; hidden > 0 {
		t.result.Problems = append(t.result.Problems[:maxProblems], fmt.Sprintf("%d more problems", hidden))
	}
	return t.result, nil
}

// IsDerived reports whether a name is one of Result.Derived.
func IsDerived(name string) bool { return strings.Contains(name, derivedMark) }

// SetOf returns which set of instances of a chain a service has, the same whatever name the file
// gives the service of the chain: what is behind that in a name of Result.Derived; "" for the
// service itself.
func SetOf(name string) string {
	_, set, _ := strings.Cut(name, derivedMark)
	return set
}

// derivedMark is in no name that an operator or a registry can give.
const derivedMark = "@"

type translation struct {
	*mesh.Compiled
	name     string
	service  config.Service // without the chain
	local    string         // the data centre that targets need not name; "": none
	result   Result
	entries  map[string]bool
	names    map[string]string        // of the services, by resolver node
	taken    map[string]bool          // names of derived services
	parts    map[string][]config.Part // of the splitters, by node: many branches may lead to one
	targets  int                      // of all services
	allParts int                      // of all branches
}

// problem says that something of an entry is not carried out.
func (t *translation) problem(entry, format string, arguments ...any) {
	t.result.Problems = append(t.result.Problems, entry+": "+fmt.Sprintf(format, arguments...))
}

// errNode is the error of a chain without a node that is needed. Consul compiles no such chain.
func errNode(name, want string) error {
	return fmt.Errorf("the chain has no %s %q", want, tags.Shorten(name))
}

func (t *translation) translate() error {
	start, ok := t.Nodes[t.StartNode]
	if !ok {
		return errNode(t.StartNode, "node")
	}
	own := t.ownResolver(start)
	if own != "" {
		if err := t.addResolver(own, t.name); err != nil {
			return err
		}
	} else {
		t.addWhole()
	}
	branches, err := t.branches(start)
	if err != nil {
		return err
	}
	if len(branches) > 0 && len(t.service.Split) > 0 {
		t.problem(t.entryOf(start), "not used: services.%s.split of the configuration has precedence", t.name)
		branches, t.result.Derived = nil, make(map[string]config.Service)
	}
	t.result.Service.Chain = branches
	for _, extension := range t.EnvoyExtensions {
		t.problem(entry(kindDefaults, t.ServiceName), "the extension of Envoy %q is not carried out", tags.Shorten(extension.Name))
	}
	return nil
}

// ownResolver returns the node of the resolver whose instances are those of the service itself; "":
// none.
//
// Behind a router or a splitter it is the one of all instances, if there is one, and else addWhole
// adds them: so the service has the same instances with every router and splitter, and a change of
// the branches cannot lead, for as long as the sets of instances need, to some that neither the
// former chain nor the new one allows.
func (t *translation) ownResolver(start mesh.Node) string {
	if start.Type == mesh.NodeResolver {
		return t.StartNode
	}
	for _, name := range slices.Sorted(maps.Keys(t.Nodes)) {
		if n := t.Nodes[name]; n.Type == mesh.NodeResolver && n.Resolver != nil && t.isOwn(t.Targets[n.Resolver.Target], "") {
			return name
		}
	}
	return ""
}

// isOwn reports whether a target is a subset of the service of the chain.
func (t *translation) isOwn(target mesh.Target, subset string) bool {
	return target.Service == t.ServiceName && target.Namespace == t.Namespace && target.Partition == t.Partition &&
		target.Datacenter == t.Datacenter && target.Peer == "" && target.ServiceSubset == subset
}

// branches returns the branches of a chain; none: every request goes to the resolver of the service
// itself.
func (t *translation) branches(start mesh.Node) (branches []config.Branch, err error) {
	switch start.Type {
	case mesh.NodeResolver:
		return nil, nil
	case mesh.NodeSplitter:
		b := config.Branch{Origin: t.entryOf(start), Route: config.Route{Path: "/", Match: "prefix"}}
		if err := t.lead(&b, t.StartNode); err != nil {
			return nil, err
		}
		return []config.Branch{b}, b.Check()
	case mesh.NodeRouter:
		return t.routes(start)
	}
	return nil, errNode(t.StartNode, "router, splitter or resolver")
}

func (t *translation) routes(router mesh.Node) (branches []config.Branch, err error) {
	if len(router.Routes) > maxBranches {
		return nil, fmt.Errorf("%s has %d routes: want at most %d", t.entryOf(router), len(router.Routes), maxBranches)
	}
	regexps := 0
	for i := range router.Routes {
		r := &router.Routes[i]
		b := config.Branch{Origin: fmt.Sprintf("%s, route %d", t.entryOf(router), i+1)}
		if i == len(router.Routes)-1 {
			b.Origin = t.entryOf(router) + ", its default route"
		}
		var to config.Branch // checked also if the route is left out
		if err := t.lead(&to, r.NextNode); err != nil {
			return nil, err
		}
		if err := match(&b, r.Definition.Match); err != nil {
			t.problem(b.Origin, "left out, so that its requests go to a later route: %v", err)
			continue
		}
		b.Route.Service, b.Route.Parts, b.Splitter = to.Route.Service, to.Route.Parts, to.Splitter
		if d := r.Definition.Destination; d != nil {
			t.destination(&b, d)
		}
		if err := b.Check(); err != nil { // impossible: every part is checked
			return nil, fmt.Errorf("%s: %w", b.Origin, err)
		}
		checked, _ := route.Check(b.Route.Target()) // as b.Check has done
		if regexps += checked.Parts; regexps > maxRegexps {
			return nil, fmt.Errorf("the regular expressions of %s have more than %d parts together, which a request may have to try: want at most %d",
				t.entryOf(router), maxRegexps, maxRegexps)
		}
		branches = append(branches, b)
	}
	return branches, nil
}

// lead makes a branch lead to a splitter or a resolver.
func (t *translation) lead(b *config.Branch, to string) error {
	switch n := t.Nodes[to]; n.Type {
	case mesh.NodeResolver:
		name, err := t.serviceOf(to)
		b.Route.Service = name
		return err
	case mesh.NodeSplitter:
		parts, known := t.parts[to]
		if !known {
			var err error
			if parts, err = t.split(n); err != nil {
				return err
			}
			t.parts[to] = parts
		}
		b.Splitter, b.Route.Parts = n.Name, slices.Clone(parts) // a branch completes its own
		if t.allParts += len(parts); t.allParts > maxAllParts {
			return fmt.Errorf("the branches have more than %d splits: want at most %d", maxAllParts, maxAllParts)
		}
		return nil
	}
	return errNode(to, "splitter or resolver")
}

// split returns what a splitter divides requests into. Consul makes one splitter of a splitter that
// leads to another one.
func (t *translation) split(splitter mesh.Node) (parts []config.Part, err error) {
	if len(splitter.Splits) > maxParts {
		return nil, fmt.Errorf("%s has %d splits: want at most %d", t.entryOf(splitter), len(splitter.Splits), maxParts)
	}
	t.entries[t.entryOf(splitter)] = true
	sum := 0.
	for i := range splitter.Splits {
		split := &splitter.Splits[i]
		if t.Nodes[split.NextNode].Type != mesh.NodeResolver {
			return nil, errNode(split.NextNode, "resolver")
		}
		name, err := t.serviceOf(split.NextNode)
		if err != nil {
			return nil, err
		}
		origin := fmt.Sprintf("%s, split %d", t.entryOf(splitter), i+1)
		part := config.Part{Share: max(0, split.Weight), Route: config.Route{Service: name, Origin: origin}}
		t.edits(origin, &part.Route.Actions, split.Definition.RequestHeaders, split.Definition.ResponseHeaders)
		sum += part.Share
		parts = append(parts, part)
	}
	if sum <= 0 {
		return nil, errors.New(t.entryOf(splitter) + " gives no share to anything")
	}
	for i := range parts {
		parts[i].Share /= sum // Consul rounds compiled weights
	}
	return parts, nil
}

// serviceOf returns the name of the service of a resolver, which it adds if it is new.
func (t *translation) serviceOf(node string) (name string, err error) {
	if name = t.names[node]; name != "" {
		return name, nil
	}
	n := t.Nodes[node]
	if n.Resolver == nil {
		return "", errNode(node, "resolver")
	}
	name = t.newName(t.Targets[n.Resolver.Target])
	return name, t.addResolver(node, name)
}

// addResolver adds the service of a resolver by a name.
func (t *translation) addResolver(node, name string) error {
	n := t.Nodes[node]
	if n.Type != mesh.NodeResolver || n.Resolver == nil {
		return errNode(node, "resolver")
	}
	s := t.copy()
	ids := []string{n.Resolver.Target}
	if f := n.Resolver.Failover; f != nil {
		ids = append(ids, f.Targets...)
	}
	if t.targets += len(ids); t.targets > maxTargets {
		return fmt.Errorf("the chain names more than %d targets: want at most %d", maxTargets, maxTargets)
	}
	for i, id := range ids {
		target, ok := t.Targets[id]
		if !ok {
			return errNode(id, "target")
		}
		if translated := t.target(target); !slices.Contains(ids[:i], id) {
			s.Consul.Targets = append(s.Consul.Targets, translated)
		}
	}
	entry := entry(kindResolver, t.Targets[n.Resolver.Target].Service)
	if !n.Resolver.Default {
		t.entries[entry] = true
	}
	t.settings(entry, &s, n)
	if name == t.name {
		s.Split, s.Judge = t.service.Split, t.service.Judge
		t.result.Service = s
	} else {
		t.result.Derived[name] = s
	}
	if t.names[node] = name; len(t.names) > maxServices {
		return fmt.Errorf("the chain leads to more than %d sets of instances: want at most %d", maxServices, maxServices)
	}
	return nil
}

// addWhole adds the service itself, for a chain that does not lead to all its instances. Routes of
// the configuration with a group or a split, and listeners for TCP, use it.
func (t *translation) addWhole() {
	s := t.copy()
	s.Split, s.Judge = t.service.Split, t.service.Judge
	whole := consulsource.Target{Service: t.ServiceName}
	for _, id := range slices.Sorted(maps.Keys(t.Targets)) {
		if target := t.Targets[id]; t.isOwn(target, target.ServiceSubset) {
			whole = t.target(target)
			whole.SNI = strings.TrimPrefix(whole.SNI, target.ServiceSubset+".")
			whole.Subset, whole.Filter, whole.OnlyPassing = "", "", false
			break
		}
	}
	t.protocol(&s)
	s.Consul.Targets = []consulsource.Target{whole}
	t.result.Service = s
}

// copy returns the service without what is about its own instances only.
func (t *translation) copy() config.Service {
	s := t.service
	selection := *s.Consul
	s.Consul, s.Split, s.Judge, s.Chain = &selection, nil, nil, nil
	selection.Targets = nil
	return s
}

// target translates a target. What is the same as for the chain is left out: Consul without
// namespaces accepts none.
func (t *translation) target(from mesh.Target) consulsource.Target {
	to := consulsource.Target{
		Service: from.Service, Subset: from.ServiceSubset, Filter: from.Subset.Filter, OnlyPassing: from.Subset.OnlyPassing,
		Peer: from.Peer, SNI: from.SNI, Gateway: string(from.MeshGateway.Mode), External: from.External,
		Namespace: unlike(from.Namespace, t.Namespace), Partition: unlike(from.Partition, t.Partition), Datacenter: unlike(from.Datacenter, t.local),
	}
	if from.Peer != "" && from.Partition == "default" {
		to.Partition = "" // of the other cluster
	}
	switch to.Gateway {
	case "", "none", "local", "remote":
	default:
		t.problem(entry(kindDefaults, from.Service), "mesh_gateway.mode %q is not carried out", tags.Shorten(to.Gateway))
		to.Gateway = ""
	}
	return to
}

// unlike returns value, or "" if it is usual.
func unlike(value, usual string) string {
	if value == usual {
		return ""
	}
	return value
}

// Kinds of config entries.
const (
	kindRouter   = "service-router"
	kindSplitter = "service-splitter"
	kindResolver = "service-resolver"
	kindDefaults = "service-defaults"
)

// entry names a config entry.
func entry(kind, name string) string { return kind + " " + tags.Shorten(name) }

// entryOf names the config entry of a router or a splitter, whose node has the name
// SERVICE.NAMESPACE.PARTITION.
func (t *translation) entryOf(n mesh.Node) string {
	service := n.Name
	for range 2 {
		if end := strings.LastIndexByte(service, '.'); end > 0 {
			service = service[:end]
		}
	}
	kind := kindSplitter
	if n.Type == mesh.NodeRouter {
		kind = kindRouter
	}
	name := entry(kind, cmp.Or(service, t.ServiceName))
	t.entries[name] = true
	return name
}

// newName returns a name for the service of a target: SUBSET of the service itself, else its own
// name and what else is not as usual, behind the name of the service in the configuration.
func (t *translation) newName(target mesh.Target) string {
	words := []string{target.ServiceSubset}
	if target.ServiceSubset == "" || !t.isOwn(target, target.ServiceSubset) {
		words = []string{
			target.Service, target.ServiceSubset, unlike(target.Namespace, t.Namespace), unlike(target.Partition, t.Partition),
			unlike(target.Datacenter, t.Datacenter), target.Peer,
		}
	}
	words = slices.DeleteFunc(words, func(word string) bool { return word == "" })
	base := t.name + derivedMark + nameable(strings.Join(words, "."))
	name := base
	for n := 2; t.taken[name]; n++ {
		name = fmt.Sprintf("%s.%d", base, n)
	}
	t.taken[name] = true
	return name
}

// nameable returns a text with only what a name of the configuration may have.
func nameable(text string) string {
	const most = 128
	text = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' {
			return c
		}
		return '-'
	}, text)
	return text[:min(len(text), most)]
}
