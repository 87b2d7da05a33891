package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"sluice/admin"
	"sluice/certificates"
	"sluice/config"
	"sluice/config/chain"
	"sluice/config/decoding"
	"sluice/config/live"
	"sluice/consul"
	"sluice/discovery"
	consulsource "sluice/discovery/consul"
	dnssource "sluice/discovery/dns"
	etcdsource "sluice/discovery/etcd"
	"sluice/discovery/etcd/client"
	filesource "sluice/discovery/file"
	kvsource "sluice/discovery/kv"
	"sluice/discovery/leader"
	"sluice/discovery/locality"
	"sluice/observe/events"
	"sluice/observe/wake"
)

// registries have the clients of Consul and etcd, and make the sources of instances and of
// documents.
type registries struct {
	consul     *consul.Client
	consulSets *consulsource.Sources
	etcd       *client.Clusters
	config     func() *config.Config // in use
	byOthers   locality.Control      // of what a document or a registration names
	log        zerolog.Logger

	namespace, partition string // of the client of Consul
}

func newRegistries(config func() *config.Config, machine *locality.Machine, feed *events.Feed, log zerolog.Logger) (*registries, error) {
	o := ClientOptions(config().Consul, log)
	o.Events = feed
	consul, err := consul.New(o)
	if err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	etcd := client.NewClusters(func(endpoints string, err error) { certificates.LogChanges("used_by", "etcd "+endpoints, log)(err) })
	r := &registries{
		consul: consul, consulSets: consulsource.NewSources(consul, log), etcd: etcd, config: config, log: log,
		byOthers:  machine.ByOthers(func() bool { return config().Discovery.AllowLocal }),
		namespace: o.Namespace, partition: o.Partition,
	}
	r.consulSets.Events = feed
	return r, nil
}

// inUse returns the settings c of Consul for sources: what needs a restart is as the client has it.
func (r *registries) inUse(c config.Consul) config.Consul {
	c.Namespace, c.Partition = r.namespace, r.partition
	return c
}

// sourceSpec is the source of the instances of a service. Two that are deeply equal need
// only one watch.
type sourceSpec struct {
	of     any                  // the options of the package of the source; nil: peers
	others bool                 // a document, and not the file, names the servers to ask
	leader *leader.Options      // of a service in Consul; nil: all instances are used
	peers  []discovery.Instance // in the configuration
}

func specOf(s config.Service, c config.Consul) sourceSpec {
	switch {
	case s.Consul != nil:
		return sourceSpec{of: ServiceOptions(*s.Consul, c), leader: leaderOptions(*s.Consul, c)}
	case s.Etcd != nil:
		e := s.Etcd
		return sourceSpec{of: etcdsource.Options{Cluster: etcdCluster(e.EtcdCluster), Prefix: e.Prefix, Key: e.Key, Probation: e.Probation}}
	case s.DNS != nil:
		return sourceSpec{of: *s.DNS, others: s.ByDocument}
	case s.ConsulKV != nil:
		return sourceSpec{of: kvsource.Options{Key: s.ConsulKV.Key, Wait: c.Wait, Probation: *s.ConsulKV.Probation}}
	case s.File != "":
		return sourceSpec{of: filesource.Options{Path: s.File}}
	}
	return sourceSpec{peers: config.Values(s.Peers)}
}

// newSource returns the source of the instances of a service.
func (r *registries) newSource(name string, spec sourceSpec) (discovery.Source, error) {
	switch o := spec.of.(type) {
	case consulsource.ServiceOptions:
		if o.Connect && o.Targets == nil {
			return noChain{o.Service}, nil
		}
		o.Set = chain.SetOf(name)
		if spec.leader != nil {
			return leader.NewSource(r.consulSets.Source(o), *spec.leader, r.consul, r.log), nil
		}
		return r.consulSets.Source(o), nil
	case etcdsource.Options:
		return etcdsource.NewSource(name, o, r.etcd, r.log)
	case dnssource.Options:
		control := locality.ByOperator
		if spec.others {
			control = r.byOthers
		}
		return dnssource.NewSource(name, o, control), nil
	case kvsource.Options:
		return kvsource.NewSource(name, o, r.consul, r.log), nil
	case filesource.Options:
		o.Watch = r.watchPeers
		return filesource.NewSource(name, o), nil
	}
	return discovery.NewStatic(name, spec.peers), nil
}

// warnUnknown logs if Consul has no service with a name, which may be misspelled. It waits until
// Consul answers.
func (r *registries) warnUnknown(ctx context.Context, name string) {
	q := consul.Query{Path: "catalog/services"}
	q.Datacenter = r.config().Consul.Datacenter
	var services map[string][]string
	var answer consul.Answer
	ask := func() (answered bool, _ error) {
		var err error
		answer, err = r.consul.Get(ctx, q, func(body io.Reader) error { return json.NewDecoder(body).Decode(&services) })
		return err == nil || consul.Denied(err), nil
	}
	if wake.Repeat(ctx, time.Second, ask) != nil {
		return
	}
	names := slices.Sorted(maps.Keys(services))
	if answer.FilteredByACL || len(names) == 0 || // it is told elsewhere
		slices.ContainsFunc(names, func(known string) bool { return strings.EqualFold(known, name) }) {
		return
	}
	r.log.Warn().Str("consul_service", name).Msg("consul: there is no service with this name" + decoding.DidYouMean(name, names))
}

// watchPeers calls changed after each change of a file with peers, until ctx ends. After an error
// it calls it again after the next event, or within 10 seconds: what changed could not use may be
// another text than the one that was compared.
func (r *registries) watchPeers(ctx context.Context, path string, changed func() error) {
	w := config.Watcher{
		File: path,
		Problem: func(err error) {
			r.log.Warn().Err(err).Str("file", path).Msg("the file system does not report changes: sluice reads the file with peers every 10 seconds")
		},
	}
	w.Changed = func() {
		if changed() != nil {
			w.Hash = ""
		}
	}
	w.Run(ctx)
}

// newDocumentSource returns the source of a key of "dynamic".
func (r *registries) newDocumentSource(y config.Dynamic, before config.Source) live.Source {
	if kv := y.ConsulKV; kv != nil {
		return &live.ConsulKV{Client: r.consul, DynamicConsulKV: *kv, Before: before, Wait: r.wait}
	}
	if y.Etcd != nil {
		return &live.Etcd{Clusters: r.etcd, Options: etcdCluster(y.Etcd.EtcdCluster), Spec: *y.Etcd, Before: before, Log: r.log}
	}
	return &live.Files{Pattern: y.File, Problem: func(err error) {
		r.log.Warn().Err(err).Str("files", y.File).
			Msg("the file system does not report changes: sluice reads the files every 10 seconds")
	}}
}

// wait returns how long a blocking query to Consul blocks without a change.
func (r *registries) wait() time.Duration { return r.config().Consul.Wait }

// certificates returns the uses of certificates by the clients.
func (r *registries) certificates() []certificates.Use {
	uses := []certificates.Use{{User: "consul", Source: r.consul.Certificates()}}
	clusters := r.etcd.Certificates()
	for _, endpoints := range slices.Sorted(maps.Keys(clusters)) {
		uses = append(uses, certificates.Use{User: "etcd " + endpoints, Source: clusters[endpoints]})
	}
	return uses
}

// named returns the services, sorted, that have a name in Consul.
func (r *registries) named(consul string) (services []string) {
	for name, service := range r.config().Services {
		if service.Consul != nil && service.Consul.Service == consul {
			services = append(services, name)
		}
	}
	slices.Sort(services)
	return services
}

// raw returns Consul's own answer about the instances of a service.
func (r *registries) raw(ctx context.Context, name string) (json.RawMessage, error) {
	c := r.config()
	switch service := c.Services[name]; {
	case service.ConsulKV != nil:
		return nil, fmt.Errorf("%w as a service, but from the key %q", admin.ErrNotInConsul, service.ConsulKV.Key)
	case service.Consul != nil:
		return consulsource.Raw(ctx, r.consul, ServiceOptions(*service.Consul, r.inUse(c.Consul)))
	}
	return nil, admin.ErrNotInConsul
}

// ask queries the instances of a service whose source is Consul: its catalog, or a key.
func (r *registries) ask(ctx context.Context, name string) (answer consulsource.Answer, err error) {
	c := r.config()
	switch service := c.Services[name]; {
	case service.ConsulKV != nil:
		answer.Instances, answer.Answer, err = kvsource.Read(ctx, r.consul, name, service.ConsulKV.Key)
		return answer, err
	case service.Consul != nil:
		return consulsource.Health(ctx, r.consul, ServiceOptions(*service.Consul, r.inUse(c.Consul)))
	}
	return answer, admin.ErrNotInConsul
}
