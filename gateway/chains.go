package gateway

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/config"
	"sluice/config/chain"
	"sluice/consul/mesh"
	"sluice/discovery"
	"sluice/observe/events"
)

// chains are the discovery chains of the services that are reached through Consul's mesh, and what
// they make of the configuration. Only the goroutine that applies configurations calls follow,
// complete and applied; the other methods may be called concurrently.
type chains struct {
	watch  *mesh.Chains
	events *events.Feed
	log    zerolog.Logger

	translated map[string]*serviceChain // by service, of the last complete; what it was made of may be refused

	mu    sync.Mutex               // guards inUse
	inUse map[string]*serviceChain // of the configuration in use
}

// serviceChain is the chain of a service. It does not change.
type serviceChain struct {
	id     mesh.ChainID
	from   config.Service // without the chain
	latest *mesh.Compiled // in Consul
	used   *mesh.Compiled // of result; nil: none can be used
	result chain.Result
	wrong  error // why latest cannot be used; nil: it is
}

func newChains(o mesh.ChainOptions, feed *events.Feed) *chains {
	return &chains{watch: mesh.NewChains(o), events: feed, log: o.Log}
}

// chainsOf returns the chains of the services of c, by service. Those of a peered cluster have none
// here.
func chainsOf(c *config.Config) map[string]mesh.ChainID {
	ids := make(map[string]mesh.ChainID)
	for name, s := range c.Services {
		if !isInMesh(s) || s.Consul.Peer != "" || chain.IsDerived(name) {
			continue
		}
		ids[name] = idOf(s.Consul)
	}
	return ids
}

func idOf(s *config.ConsulService) mesh.ChainID {
	id := mesh.ChainID{Service: s.Service, Namespace: s.Namespace, Partition: s.Partition}
	if len(s.Datacenters) > 0 {
		id.Datacenter = s.Datacenters[0] // with Connect there is at most one
	}
	return id
}

// lacksChain reports whether a service in the mesh cannot have peers, as its chain is not known.
func lacksChain(s config.Service) bool {
	return isInMesh(s) && len(s.Consul.Targets) == 0
}

// noChain is the source of a service whose discovery chain is not known. Nothing is known of the
// instances either: the chain may lead elsewhere than to those of its name.
type noChain struct{ service string }

func (n noChain) String() string {
	return fmt.Sprintf("consul service %q through the mesh, without its discovery chain", n.service)
}

// Run implements discovery.Source.
func (noChain) Run(ctx context.Context, _ discovery.WatchState, _ func(discovery.Report)) error {
	<-ctx.Done()
	return ctx.Err()
}

// save returns the chains that are known, for a new process: in place of those that cannot be used,
// the ones in use.
func (c *chains) save() []mesh.ChainState {
	c.mu.Lock()
	defer c.mu.Unlock()
	states := c.watch.Save()
	for i, state := range states {
		for _, s := range c.inUse {
			if s.id == state.ChainID && s.wrong != nil && s.used != nil {
				// Consul says soon what it has.
				states[i] = mesh.ChainState{ChainID: s.id, Compiled: s.used}
			}
		}
	}
	return states
}

// follow also follows the chains of the services of c, and waits until they are known, at most for
// timeout.
func (c *chains) follow(ctx context.Context, next *config.Config, timeout time.Duration) {
	ids := slices.Collect(maps.Values(chainsOf(next)))
	for _, known := range c.watch.All() {
		ids = append(ids, known.ChainID)
	}
	c.watch.Follow(ids)
	if timeout > 0 {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		c.watch.Await(ctx)
	}
}

// complete returns merged with the chains: services have their targets and branches, and others are
// derived of them. A service whose chain is not known has no targets. It does not change merged.
func (c *chains) complete(merged *config.Config) *config.Config {
	ids := chainsOf(merged)
	translated := make(map[string]*serviceChain, len(ids))
	if len(ids) == 0 {
		c.translated = translated
		return merged
	}
	completed := *merged
	completed.Services = maps.Clone(merged.Services)
	for name, id := range ids {
		compiled := c.watch.Lookup(id).Compiled
		if compiled == nil {
			continue
		}
		s := translate(name, id, merged.Services[name], compiled, c.before(name, id))
		translated[name] = s
		if s.used != nil {
			completed.Services[name] = s.result.Service
			maps.Copy(completed.Services, s.result.Derived)
		}
	}
	c.translated = translated
	return &completed
}

// before returns what the chain of a service was before; nil: it was not known. A service that is
// new begins with the chain in use in another one that has the same, whose name it may have had.
func (c *chains) before(name string, id mesh.ChainID) *serviceChain {
	if own := c.inUse[name]; own != nil { // only this goroutine changes it
		return own
	}
	for _, other := range slices.Sorted(maps.Keys(c.inUse)) {
		if s := c.inUse[other]; s.id == id && s.used != nil {
			return &serviceChain{id: id, used: s.used}
		}
	}
	return nil
}

// translate translates the chain of a service. If it cannot be used, the one of before stays.
func translate(name string, id mesh.ChainID, from config.Service, compiled *mesh.Compiled, before *serviceChain) *serviceChain {
	if before != nil && before.id != id {
		before = nil
	}
	if before != nil && before.latest == compiled && reflect.DeepEqual(before.from, from) {
		return before
	}
	s := &serviceChain{id: id, from: from, latest: compiled, used: compiled}
	if s.result, s.wrong = chain.Translate(name, from, id.Datacenter, compiled); s.wrong == nil {
		return s
	}
	s.used = nil
	if before != nil && before.used != nil {
		var err error
		if s.result, err = chain.Translate(name, from, id.Datacenter, before.used); err == nil {
			s.used = before.used
		}
	}
	return s
}

// applied says that the configuration of the last complete is in use.
func (c *chains) applied(completed *config.Config) {
	c.watch.Follow(slices.Collect(maps.Values(chainsOf(completed))))
	before := c.use()
	for _, name := range slices.Sorted(maps.Keys(c.translated)) {
		c.announce(name, before[name], c.translated[name])
	}
}

// use sets what is in use, and returns what was.
func (c *chains) use() (before map[string]*serviceChain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, c.inUse = c.inUse, c.translated
	return before
}

// announce says once what is new of the chain of a service.
func (c *chains) announce(name string, before, now *serviceChain) {
	if before == now {
		return
	}
	if before == nil {
		before = new(serviceChain)
	}
	log := c.log.With().Str("service", name).Logger()
	if now.wrong != nil && (before.wrong == nil || before.wrong.Error() != now.wrong.Error()) {
		log.Error().Err(now.wrong).Msg("the discovery chain cannot be used: the former one stays in use")
		c.events.Add(events.Event{Kind: events.KindChainRefused, Level: events.Warning, Service: name, Text: "The discovery chain of " + name + " cannot be used: " + now.wrong.Error()})
	}
	if now.used == nil {
		return
	}
	changed := before.used == nil || !reflect.DeepEqual(before.used, now.used)
	if changed {
		log.Info().Strs("entries", now.result.Entries).Str("protocol", now.used.Protocol).Int("problems", len(now.result.Problems)).
			Msg("the discovery chain is in use")
	}
	if changed && (before.used != nil || !now.used.Default) {
		text := "The discovery chain of " + name + " is in use: "
		if text += strings.Join(now.result.Entries, ", "); len(now.result.Entries) == 0 {
			text += "no config entry applies"
		}
		c.events.Add(events.Event{Kind: events.KindChainChanged, Service: name, Text: text})
	}
	if len(now.result.Problems) > 0 && !slices.Equal(before.result.Problems, now.result.Problems) {
		log.Warn().Strs("problems", now.result.Problems).Msg("parts of the discovery chain are not carried out")
		c.events.Add(events.Event{Kind: events.KindChainProblem, Level: events.Warning, Service: name,
			Text: "Parts of the discovery chain of " + name + " are not carried out: " + strings.Join(now.result.Problems, "; ")})
	}
}

// settled reports whether the chains of the services of c, the configuration in use, are in use, or
// Consul refuses them.
func (c *chains) settled(inUse *config.Config) bool {
	for name, id := range chainsOf(inUse) {
		if lacksChain(inUse.Services[name]) && !c.watch.Lookup(id).Refused {
			return false
		}
	}
	return true
}

// missing returns why a service of the configuration in use has no chain, and whether that stays so
// until somebody changes something: Consul refuses it, or it cannot be used. "": it has one, or
// needs none.
func (c *chains) missing(inUse *config.Config, name string) (text string, refused bool) {
	if !lacksChain(inUse.Services[name]) {
		return "", false
	}
	known := c.watch.Lookup(idOf(inUse.Services[name].Consul))
	why, refused := "no answer from Consul", known.Refused
	if known.LastError != nil {
		why = known.LastError.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.inUse[name]; s != nil && s.wrong != nil {
		why, refused = s.wrong.Error(), true
	}
	return "no discovery chain yet: " + why, refused
}

// statuses returns the chains of the services of c, the configuration in use, sorted by service.
func (c *chains) statuses(inUse *config.Config) []admin.Chain {
	ids := chainsOf(inUse)
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []admin.Chain{}
	for _, name := range slices.Sorted(maps.Keys(ids)) {
		known := c.watch.Lookup(ids[name])
		status := admin.Chain{
			Service: name, ConsulService: known.Service, Namespace: known.Namespace, Partition: known.Partition, Datacenter: known.Datacenter,
			Index: known.Index, Since: known.Since, KeptUntil: known.KeptUntil, Entries: []string{}, Targets: []admin.ChainTarget{}, Problems: []string{},
		}
		if known.LastError != nil {
			status.LastError = known.LastError.Error()
		}
		if s := c.inUse[name]; s != nil {
			describeChain(&status, s)
		}
		all = append(all, status)
	}
	return all
}

// describeChain adds what is in use to a status.
func describeChain(status *admin.Chain, s *serviceChain) {
	if s.wrong != nil {
		status.Refused = s.wrong.Error()
	}
	if s.used == nil {
		return
	}
	status.Known, status.Default, status.Protocol = true, s.used.Default, s.used.Protocol
	status.Entries, status.Problems = append(status.Entries, s.result.Entries...), append(status.Problems, s.result.Problems...)
	describe := func(servedBy string, configured config.Service) {
		for i, target := range configured.Consul.Targets {
			described := admin.ChainTarget{ServedBy: servedBy, Failover: i > 0, SNI: target.SNI, Gateway: target.Gateway, External: target.External}
			described.ConsulService, described.Namespace, described.Partition = target.Service, target.Namespace, target.Partition
			described.Datacenter, described.Peer = target.Datacenter, target.Peer
			described.Subset, described.Filter, described.OnlyPassing = target.Subset, target.Filter, target.OnlyPassing
			status.Targets = append(status.Targets, described)
		}
	}
	describe(status.Service, s.result.Service)
	for _, name := range slices.Sorted(maps.Keys(s.result.Derived)) {
		describe(name, s.result.Derived[name])
	}
}

// problems returns the number of problems of each chain in use, by service.
func (c *chains) problems() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	numbers := make(map[string]int, len(c.inUse))
	for name, s := range c.inUse {
		if numbers[name] = len(s.result.Problems); s.wrong != nil {
			numbers[name]++
		}
	}
	return numbers
}
