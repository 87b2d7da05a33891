package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"sluice/discovery/consul"
)

// Options says where to look, and at what.
type Options struct {
	Consul     consul.ClientOptions
	Datacenter string   // default that of the agent
	Services   []string // Consul's names; empty: all

	// AgentURLs has, by node, where its agent answers. Others are asked at the
	// address by which the cluster's members know them, with the scheme and port
	// of the agent in Consul.
	AgentURLs map[string]string

	Uses       []Use // services of the configuration; only Name, Source and Routed are read
	Configured bool
	Own        string // name under which sluice registers itself; "": it does not

	Peers      []Peer // of a running sluice
	PeersKnown bool

	Thresholds Thresholds

	// ConnectTimeout is for a connection to each address in service; 0: none is
	// tried.
	ConnectTimeout time.Duration
}

// Doctor examines one data centre. It is not safe for concurrent use.
type Doctor struct {
	options Options
	api     *consul.API            // of the agent that is asked; nil: none was chosen yet
	client  *consul.Client         // of the same, as sluice would ask for a service
	owners  map[string]*consul.API // by node, of those that were asked
	// consistent has the leader answer, once a majority has confirmed it.
	consistent  bool
	goneTimeout time.Duration // shorter in tests only
}

// New makes a doctor, which does not connect yet. The caller calls Close.
func New(o Options) *Doctor {
	o.Consul.Log = zerolog.Nop()
	return &Doctor{options: o, owners: make(map[string]*consul.API), goneTimeout: goneTimeout}
}

// Close closes all connections.
func (d *Doctor) Close() {
	if d.client != nil {
		d.client.Close()
	}
	if d.api != nil {
		d.api.Close()
	}
	for _, owner := range d.owners {
		owner.Close()
	}
}

// Examine looks at the catalog and says what is wrong. It fails if it could
// not look; a finding is no failure.
func (d *Doctor) Examine(ctx context.Context) (*Report, error) {
	begin := time.Now()
	f, err := d.gather(ctx)
	if err != nil {
		return nil, err
	}
	findings := Diagnose(f, d.options.Thresholds)
	services := make(map[string]bool)
	for _, i := range f.Instances {
		services[i.Service] = true
	}
	stats, asSluice := d.api.Stats(), d.client.Stats()
	token := f.Token.Name
	if f.Token.Anonymous && f.Token.ACLs {
		token = "anonymous"
	}
	return &Report{
		Schema: SchemaVersion,
		Time:   f.Time.UTC().Truncate(time.Millisecond),
		Agent: ReportedAgent{
			URL: f.Agent.URL, Node: f.Agent.Node, Datacenter: f.Agent.Datacenter, Version: f.Agent.Version,
			Server: f.Agent.Server, Leader: f.Agent.Leader, Token: token,
		},
		Looked: Looked{
			Datacenter: cmp.Or(d.options.Datacenter, f.Agent.Datacenter),
			Services:   len(services), Instances: len(f.Instances), Nodes: len(f.Nodes),
			Queries: stats.Queries + asSluice.Queries, Bytes: stats.BytesReceived + asSluice.BytesReceived, Millis: time.Since(begin).Milliseconds(),
		},
		Count:    count(findings),
		Findings: findings,
	}, nil
}

// connect chooses the agent to ask, once. It returns the leader's address.
func (d *Doctor) connect(ctx context.Context) (leader string, err error) {
	if d.api != nil {
		return leaderOf(ctx, d.api)
	}
	chosen, leader, err := choose(ctx, d.options.Consul)
	if err != nil {
		return "", err
	}
	only := d.options.Consul
	only.Addresses = []string{chosen.URL}
	if d.client, err = consul.NewClient(only); err != nil {
		chosen.Close()
		return "", err
	}
	d.api = chosen
	return leader, nil
}

// choose returns the first agent that knows a leader, else the first that
// answers at all, and the leader's address.
func choose(ctx context.Context, o consul.ClientOptions) (chosen *consul.API, leader string, err error) {
	addresses, err := o.Agents()
	if err != nil {
		return nil, "", err
	}
	var failures []error
	for _, address := range addresses {
		client, err := o.API(address)
		if err != nil {
			return nil, "", err
		}
		leader, err := leaderOf(ctx, client)
		switch {
		case err != nil:
			failures = append(failures, err)
			client.Close()
		case leader != "":
			if chosen != nil {
				chosen.Close()
			}
			return client, leader, nil
		case chosen == nil:
			chosen = client
		default:
			client.Close()
		}
	}
	if chosen == nil {
		return nil, "", errors.Join(failures...)
	}
	return chosen, "", nil
}

// leaderOf asks an agent for the leader's address; "": it knows none.
func leaderOf(ctx context.Context, client *consul.API) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	leader, err := client.Status().LeaderWithQueryOptions(query(ctx))
	if err != nil {
		return "", fmt.Errorf("consul %s: %w", client.URL, plainly(err))
	}
	return leader, nil
}
