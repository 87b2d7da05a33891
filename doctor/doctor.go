package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/consul"
)

// Options configure a Doctor.
type Options struct {
	Consul     consul.Options
	Datacenter string   // default: the agent's
	Services   []string // Consul's names; empty: all

	Keep string // node whose registration of a process with several stays; empty: the live one's

	// AgentURLs has the URLs of agents by node. The default is the address in the
	// member list, with the scheme and port of the agent in Consul.
	AgentURLs map[string]string

	Config   *config.Config // as operators wrote it; nil: there is none
	Uses     []Use          // its services; the part before Service is read
	Own      string         // service name of sluice's own registration; "": none
	MeshName string         // name of sluice in the mesh; required if services are reached by it

	Peers []Peer // of a running sluice; nil: none answers

	CriticalFor time.Duration // how long an instance may be critical without a finding

	// ConnectTimeout bounds a connection attempt to each serving address; 0: none.
	ConnectTimeout time.Duration
}

// Doctor examines one data centre. It is not safe for concurrent use.
type Doctor struct {
	options Options
	api     *consul.API            // of the chosen agent; nil: not chosen
	client  *consul.Client         // of the same, for queries as sluice sends them
	agents  map[string]*consul.API // of other agents, by node
	// consistent selects Consul's consistency mode "consistent".
	consistent  bool
	goneTimeout time.Duration // shorter in tests only
}

// New makes a doctor without a connection. The caller calls Close.
func New(o Options) *Doctor {
	o.Consul.Log = zerolog.Nop()
	return &Doctor{options: o, agents: make(map[string]*consul.API), goneTimeout: goneTimeout}
}

func (d *Doctor) Close() {
	if d.client != nil {
		d.client.Close()
	}
	if d.api != nil {
		d.api.Close()
	}
	for _, agent := range d.agents {
		agent.Close()
	}
}

// Examine reads the catalog and returns the findings. It fails if it cannot read it.
func (d *Doctor) Examine(ctx context.Context) (*Report, error) {
	begin := time.Now()
	f, err := d.gather(ctx)
	if err != nil {
		return nil, err
	}
	findings := Diagnose(f, d.options.CriticalFor)
	services := make(map[string]bool)
	for _, i := range f.Instances {
		services[i.Service] = true
	}
	stats, asSluice := d.api.Stats(), d.client.Stats()
	return &Report{
		Schema: SchemaVersion,
		Time:   f.Time.UTC().Truncate(time.Millisecond),
		Agent:  f.Agent,
		Looked: Looked{
			Datacenter: cmp.Or(d.options.Datacenter, f.Agent.Datacenter),
			Services:   len(services), Instances: len(f.Instances), Nodes: len(f.Nodes),
			Queries: stats.Queries + asSluice.Queries, Bytes: stats.BytesReceived + asSluice.BytesReceived, Millis: time.Since(begin).Milliseconds(),
		},
		Count:    count(findings),
		Findings: findings,
	}, nil
}

// connect chooses the agent, once, and returns the leader's address.
func (d *Doctor) connect(ctx context.Context) (leader string, err error) {
	if d.api != nil {
		return leaderOf(ctx, d.api)
	}
	chosen, leader, err := chooseAgent(ctx, d.options.Consul)
	if err != nil {
		return "", err
	}
	only := d.options.Consul
	only.Addresses = []string{chosen.URL}
	if d.client, err = consul.New(only); err != nil {
		chosen.Close()
		return "", err
	}
	d.api = chosen
	return leader, nil
}

// chooseAgent returns the first agent that knows a leader, else the first that answers.
func chooseAgent(ctx context.Context, o consul.Options) (chosen *consul.API, leader string, err error) {
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

// leaderOf returns the leader's address; "": the agent knows none.
func leaderOf(ctx context.Context, client *consul.API) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	leader, err := client.Status().LeaderWithQueryOptions(query(ctx))
	if err != nil {
		return "", fmt.Errorf("consul %s: %w", client.URL, consul.Shorten(err))
	}
	return leader, nil
}
