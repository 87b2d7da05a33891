package consul

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consul"
	"sluice/discovery"
)

// Answer is an answer of Consul about a service.
type Answer struct {
	consul.Answer
	Instances []discovery.Instance // normalised
	Skipped   []Skipped            // entries that are not usable
	Listed    int                  // entries in the answer

	nodes    []string      // of all entries, sorted
	services []string      // of all entries, sorted, with those that lead to it in the mesh
	ttl      time.Duration // of a prepared query; 0: it has none
}

// Skipped is an entry of an answer that is not a usable instance.
type Skipped struct {
	ID, Node string
	Reason   string
}

// Health queries once, without blocking, all instances of o.Service, or the result of
// o.PreparedQuery. Of several data centres it returns the answer of the one that a new
// source would use or, with o.Spill and of o.Targets, the answers of all as one.
func Health(ctx context.Context, client *consul.Client, o ServiceOptions) (Answer, error) {
	o = o.normal()
	if o.parts() == nil || o.PreparedQuery != "" {
		return query(ctx, client.Get, &o, api.QueryOptions{})
	}
	var best Answer
	most, firstErr := -1, error(nil)
	if o.Nearest {
		distances, err := readDistances(ctx, client)
		if err != nil {
			return Answer{}, err
		}
		var order distanceOrder
		order.record(distances)
		o.Datacenters = slices.Clone(o.Datacenters)
		nearestFirst(o.Datacenters, func(name string) string { return name }, order.names)
	}
	var all union
	for position, p := range o.parts() {
		answer, err := p.query(ctx, client)
		if err != nil {
			firstErr = cmp.Or(firstErr, err)
			continue
		}
		if o.together() {
			all.add(answer.Instances, position, p)
			answer.Instances = all.set
			best, most = answer, 0
			continue
		}
		n := discovery.CountServing(answer.Instances)
		if n >= o.MinHealthy {
			return answer, nil
		}
		if n > most {
			best, most = answer, n
		}
	}
	if most < 0 && firstErr != nil {
		return Answer{}, firstErr
	}
	return best, nil
}

// Raw returns what Consul answers to the queries of [Health], as it is. Of several data centres or
// targets it is one list with the entries of all.
func Raw(ctx context.Context, client *consul.Client, o ServiceOptions) (json.RawMessage, error) {
	o = o.normal()
	asked := []*ServiceOptions{&o}
	if o.PreparedQuery == "" && o.parts() != nil {
		asked = nil
		for _, p := range o.parts() {
			asked = append(asked, &p.options)
		}
	}
	var body json.RawMessage
	get := func(ctx context.Context, q consul.Query, read func(io.Reader) error) (consul.Answer, error) {
		return client.Get(ctx, q, func(r io.Reader) (err error) {
			if body, err = io.ReadAll(r); err != nil {
				return err
			}
			return read(bytes.NewReader(body))
		})
	}
	var all []json.RawMessage
	for _, options := range asked {
		if _, err := query(ctx, get, options, api.QueryOptions{}); err != nil {
			return nil, err
		}
		if len(asked) == 1 {
			return body, nil
		}
		var entries []json.RawMessage
		if err := json.Unmarshal(body, &entries); err != nil {
			return nil, err
		}
		all = append(all, entries...)
	}
	return json.Marshal(all)
}

// query queries once, without blocking.
func (p *part) query(ctx context.Context, client *consul.Client) (Answer, error) {
	answer, err := query(ctx, client.Get, &p.options, api.QueryOptions{})
	if err != nil || p.gateways == nil {
		return answer, err
	}
	gateways, err := query(ctx, client.Get, p.gateways, api.QueryOptions{})
	gateways.Instances = p.target.through(gateways.Instances, answer.Instances)
	return gateways, err
}

// get is the method of a client or a loop.
type get func(context.Context, consul.Query, func(io.Reader) error) (consul.Answer, error)

// query queries the instances of o.Service. q has the options of this query; its wait
// requires an index.
func query(ctx context.Context, get get, o *ServiceOptions, q api.QueryOptions) (Answer, error) {
	if !q.RequireConsistent {
		q.AllowStale = o.Consistency == ConsistencyStale
		q.RequireConsistent = o.Consistency == ConsistencyConsistent
		q.UseCache = o.Cached && !q.RequireConsistent
	}
	if o.PreparedQuery != "" {
		// The agent does not update a result in its cache, for three days.
		q.MaxAge = o.Poll
	}
	q.Filter = o.Filter
	q.Datacenter = o.Datacenter
	q.Near = o.Near
	q.Namespace = o.Namespace
	q.Partition = o.Partition
	q.Peer = o.Peer
	var result preparedResult
	header, err := get(ctx, consul.Query{
		QueryOptions: q,
		View:         o.PreparedQuery == "",
		// Another data centre may hold its queries for long.
		InTurn: o.PreparedQuery == "" && o.Datacenter == "" && o.Peer == "",
		Needs:  permissions(o),
		Send: func(c *api.Client, q *api.QueryOptions) (err error) {
			switch {
			case o.PreparedQuery != "":
				_, _, err = c.PreparedQuery().Execute(o.PreparedQuery, q)
			case o.Connect:
				// It ignores tags: see instances.
				_, _, err = c.Health().Connect(o.Service, "", false, q)
			default:
				_, _, err = c.Health().ServiceMultipleTags(o.Service, o.Tags, false, q)
			}
			return err
		},
	}, func(body io.Reader) error {
		result = preparedResult{Nodes: entryList{tag: o.Address}}
		if o.PreparedQuery == "" {
			return read(body, &result.Nodes)
		}
		return read(body, &result)
	})
	answer := Answer{Answer: header}
	switch {
	case err != nil:
		return answer, err
	case result.Nodes.all == nil: // null is not an empty list
		return answer, fmt.Errorf("consul %s: the answer is not a list of instances", header.URL)
	}
	entries := result.Nodes.all
	answer.Listed = len(entries)
	answer.nodes, answer.services = nodesAndServices(entries)
	answer.ttl, _ = time.ParseDuration(result.DNS.TTL) // Consul checks it
	answer.Instances, answer.Skipped = instances(entries, o)
	return answer, nil
}

// nodesAndServices returns the names of the nodes and of the services of entries, sorted.
func nodesAndServices(entries []serviceEntry) (nodes, services []string) {
	nodes = make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Node != nil {
			nodes = append(nodes, e.Node.Node)
		}
		if e.Service != nil && !slices.Contains(services, e.Service.Service) {
			services = append(services, e.Service.Service)
		}
	}
	slices.Sort(nodes)
	slices.Sort(services)
	return slices.Compact(nodes), services
}

// permissions returns the permissions that a token needs to see o's instances.
func permissions(o *ServiceOptions) string {
	if o.PreparedQuery != "" {
		return fmt.Sprintf("query:read for %q (if the query has no token of its own), service:read for its service and node:read for its nodes", o.PreparedQuery)
	}
	if o.Connect { // with the first one only, the answer lacks all sidecars
		return fmt.Sprintf("service:read for %q and for its sidecars, such as %q, and node:read for their nodes", o.Service, o.Service+sidecar)
	}
	return fmt.Sprintf("service:read for %q and node:read for its nodes", o.Service)
}
