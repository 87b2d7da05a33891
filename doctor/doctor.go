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
	api     *consul.API            // of the agent that is asked
	client  *consul.Client         // as sluice would ask for a service
	owners  map[string]*consul.API // by node, of those that were asked
	// consistent has the leader answer, once a majority has confirmed it.
	consistent bool
}

// New makes a doctor. It reads the token and the certificates, and does not
// connect yet. The caller calls Close.
func New(o Options) (*Doctor, error) {
	o.Consul.Log = zerolog.Nop()
	client, err := consul.NewClient(o.Consul)
	if err != nil {
		return nil, err
	}
	return &Doctor{options: o, client: client, owners: make(map[string]*consul.API)}, nil
}

// Close closes all connections.
func (d *Doctor) Close() {
	d.client.Close()
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
	stats := d.api.Stats()
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
			Queries: stats.Queries, Bytes: stats.BytesReceived, Millis: time.Since(begin).Milliseconds(),
		},
		Count:    count(findings),
		Findings: findings,
	}, nil
}

// connect chooses the agent to ask: the first one that knows a leader, else the
// first that answers at all. It returns the leader's address.
func (d *Doctor) connect(ctx context.Context) (leader string, err error) {
	if d.api != nil {
		return leaderOf(ctx, d.api)
	}
	addresses, err := d.options.Consul.Agents()
	if err != nil {
		return "", err
	}
	var failures []error
	for _, address := range addresses {
		client, err := d.options.Consul.API(address)
		if err != nil {
			return "", err
		}
		found, err := leaderOf(ctx, client)
		switch {
		case err != nil:
			failures = append(failures, err)
			client.Close()
			continue
		case d.api == nil || found != "":
			if d.api != nil {
				d.api.Close()
			}
			d.api = client
		default:
			client.Close()
		}
		if found != "" {
			return found, nil
		}
	}
	if d.api == nil {
		return "", errors.Join(failures...)
	}
	return "", nil
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
