//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// catalog changes the catalog that is watched.
type catalog struct {
	client           *api.Client
	instances, nodes int
	unchecked        bool // instances have no checks
	port             int  // of every instance
}

// instance returns the registration of instance i of service s.
func (c catalog) instance(s, i int, status string) *api.CatalogRegistration {
	n := (s*c.instances + i) % c.nodes
	id := fmt.Sprintf("%s-%d", serviceName(s), i)
	r := &api.CatalogRegistration{
		Node:           nodeName(n),
		Address:        nodeAddress(n),
		SkipNodeUpdate: true, // fill has registered it
		Service: &api.AgentService{
			ID: id, Service: serviceName(s), Address: instanceAddress(i), Port: c.port,
			Tags: []string{"v1", "http"}, Meta: map[string]string{"version": "1.2.3"},
			Weights: api.AgentWeights{Passing: 1, Warning: 1},
		},
		Checks: api.HealthChecks{{
			Node: nodeName(n), CheckID: "service:" + id, Name: "Service '" + serviceName(s) + "' check",
			Status: status, ServiceID: id, Output: "HTTP GET http://127.0.0.1:10000/health: 200 OK Output: ok",
		}},
	}
	if c.unchecked {
		r.Checks = nil
	}
	return r
}

func (c catalog) register(s, i int, status string) error {
	_, err := c.client.Catalog().Register(c.instance(s, i, status), nil)
	return err
}

func (c catalog) deregister(s, i int) error {
	r := c.instance(s, i, "")
	_, err := c.client.Catalog().Deregister(&api.CatalogDeregistration{Node: r.Node, ServiceID: r.Service.ID}, nil)
	return err
}

// txnOps is how many operations a transaction has: Consul takes up to 128.
const txnOps = 128

// fill registers every instance of services.
func (c catalog) fill(ctx context.Context, services int) error {
	var ops api.TxnOps
	add := func(more ...*api.TxnOp) error {
		if len(ops)+len(more) > txnOps {
			if err := c.commit(ctx, ops); err != nil {
				return err
			}
			ops = nil
		}
		ops = append(ops, more...)
		return nil
	}
	for n := range c.nodes {
		if err := add(&api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: nodeName(n), Address: nodeAddress(n)}}}); err != nil {
			return err
		}
	}
	for s := range services {
		for i := range c.instances {
			r := c.instance(s, i, api.HealthPassing)
			more := api.TxnOps{{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: r.Node, Service: *r.Service}}}
			for _, check := range r.Checks {
				more = append(more, &api.TxnOp{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: *check}})
			}
			if err := add(more...); err != nil {
				return err
			}
		}
	}
	return c.commit(ctx, ops)
}

func (c catalog) commit(ctx context.Context, ops api.TxnOps) error {
	ok, response, _, err := c.client.Txn().Txn(ops, (&api.QueryOptions{}).WithContext(ctx))
	if err == nil && !ok {
		err = fmt.Errorf("the transaction was refused: %s", response.Errors[0].What)
	}
	return err
}

func nodeName(n int) string    { return fmt.Sprintf("bench-%d", n) }
func nodeAddress(n int) string { return fmt.Sprintf("10.0.%d.%d", n/250, n%250+1) }
