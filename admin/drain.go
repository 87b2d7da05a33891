package admin

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/balancer/reading"
	"sluice/discovery"
	"sluice/operator"
)

const (
	// maxFor bounds how long an order that expires may last.
	maxFor = 365 * 24 * time.Hour
	// acceptTimeout is how long an answer waits until Consul has accepted an order.
	acceptTimeout = 2 * time.Second
)

// Operated is the answer to an order about a peer.
type Operated struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Node    string `json:"node"`
	Address string `json:"address"`
	Peer    *Peer  `json:"peer"` // null: the instance is absent
	Acceptance
}

// OperatedNode is the answer to an order about a node.
type OperatedNode struct {
	Node       string `json:"node"`
	Datacenter string `json:"datacenter,omitempty"`
	Peers      []Peer `json:"peers"` // that are registered with it now
	Acceptance
}

// Acceptance says whether other replicas get an order.
type Acceptance struct {
	Shared  bool   `json:"shared"`            // they obey it, or will when Consul answers
	Pending string `json:"pending,omitempty"` // why Consul does not have it yet
}

// orderHandler carries out orders about peers and nodes.
type orderHandler struct{ Options }

// drain answers POST /api/peers/{service}/{id}/drain. ?why= and ?by= are shown with the peer, ?for=
// limits the drain.
func (h orderHandler) drain(r *http.Request, o operator.Order) (any, error) {
	o.Kind = operator.Drain
	return h.give(r, o)
}

// setWeight answers POST /api/peers/{service}/{id}/weight?weight=, with the parameters of drain.
func (h orderHandler) setWeight(r *http.Request, o operator.Order) (any, error) {
	weight, err := strconv.Atoi(r.URL.Query().Get("weight"))
	if err != nil || weight < 1 || weight > discovery.MaxWeight {
		return nil, refuse(http.StatusBadRequest, "weight: want a number from 1 to %d, such as ?weight=5; a drain takes a peer out", discovery.MaxWeight)
	}
	o.Kind, o.Weight = operator.Weight, weight
	return h.give(r, o)
}

// ordered answers with what f makes of an order with the terms of the request.
func ordered(f func(r *http.Request, o operator.Order) (any, error)) http.HandlerFunc {
	return answer(func(r *http.Request) (any, error) {
		o, err := terms(r)
		if err != nil {
			return nil, err
		}
		return f(r, o)
	})
}

// lasting is ordered for what does not end by itself.
func lasting(f func(r *http.Request, o operator.Order) (any, error)) http.HandlerFunc {
	return ordered(func(r *http.Request, o operator.Order) (any, error) {
		if !o.Until.IsZero() {
			return nil, errLasting
		}
		return f(r, o)
	})
}

var errLasting = refuse(http.StatusBadRequest, "for: this does not end by itself")

// terms returns what the parameters of r say of any order.
func terms(r *http.Request) (o operator.Order, err error) {
	query := r.URL.Query()
	o.Why, o.By = query.Get("why"), query.Get("by")
	if err := checkTexts(r, "why", "by"); err != nil {
		return o, err
	}
	if query.Has("for") {
		d, err := time.ParseDuration(query.Get("for"))
		if err != nil || d < time.Second || d > maxFor {
			return o, refuse(http.StatusBadRequest, "for: want a duration from 1s to %v, such as ?for=30m", maxFor)
		}
		o.Until = time.Now().Add(d)
	}
	return o, nil
}

// checkTexts checks that parameters for people may be kept and shown.
func checkTexts(r *http.Request, names ...string) error {
	for _, name := range names {
		if !operator.IsText(r.URL.Query().Get(name)) {
			return refuse(http.StatusBadRequest, "%s: want up to %d bytes of printable text", name, operator.MaxText)
		}
	}
	return nil
}

// give gives the order o about the peer that the path names.
func (h orderHandler) give(r *http.Request, o operator.Order) (any, error) {
	found, err := h.find(r, "")
	if err != nil {
		return nil, err
	}
	about := operator.About(found.Key, found.node)
	about.Kind, about.Weight, about.Why, about.By, about.Until = o.Kind, o.Weight, o.Why, o.By, o.Until
	if err := h.Orders.Give(about); err != nil {
		return nil, err
	}
	return h.operated(r, found, about.Key()), nil
}

// end answers POST /api/peers/{service}/{id}/enable and …/weight/release, which end the order of a
// kind about the peer that the path names.
func (h orderHandler) end(kind operator.Kind) func(*http.Request, operator.Order) (any, error) {
	return func(r *http.Request, by operator.Order) (any, error) {
		found, err := h.find(r, kind)
		if err != nil {
			return nil, err
		}
		o := operator.About(found.Key, found.node)
		o.Kind = kind
		ended, err := h.Orders.Store.End(o.Key(), by.By)
		if err != nil {
			return nil, err
		}
		if kind == operator.Drain && !ended && found.instance != nil {
			if drain := h.Orders.Set().OfNode(*found.instance); drain != nil {
				return nil, refuse(http.StatusConflict, "its node is drained: %s (POST /api/nodes/%s/enable ends it)", drain.Reason(), drain.Node)
			}
		}
		return h.operated(r, found, o.Key()), nil
	}
}

// found is a peer that an order is about.
type found struct {
	discovery.Key
	node     string
	instance *discovery.Instance // nil: it is absent
}

// find returns the peer that the path names. ?node= and ?address= choose among peers with the same
// id. An absent one is found if an order of the kind ended is about it.
func (h orderHandler) find(r *http.Request, ended operator.Kind) (one found, err error) {
	service, id, query := r.PathValue("service"), r.PathValue("id"), r.URL.Query()
	node, address := query.Get("node"), query.Get("address")
	var all []found
	addMatching := func(f found) {
		if f.ID == id && (node == "" || f.node == node) && (address == "" || f.Address == address) &&
			!slices.ContainsFunc(all, func(other found) bool { return other.Key == f.Key }) {
			all = append(all, f)
		}
	}
	// In the registry the service may have another name, which the instances and the orders have.
	known, names := false, map[string]bool{service: true, h.nameInRegistry(service): true}
	for _, pool := range reading.Sorted(h.Pools()) {
		if pool.Name != service {
			continue
		}
		known = true
		for _, peer := range pool.Snapshot().All {
			i := peer.Instance()
			names[peer.ID.Service] = true
			addMatching(found{peer.ID, i.Node, &i})
		}
	}
	for _, o := range h.Orders.Set().All() {
		if o.Kind == ended && !o.OfNode() {
			known = known || o.Service == service
			if names[o.Service] {
				addMatching(found{o.Peer(), o.Node, nil})
			}
		}
	}
	switch {
	case !known:
		return one, refuse(http.StatusNotFound, "no service %q", service)
	case len(all) == 0:
		return one, refuse(http.StatusNotFound, "service %q has no peer %q", service, id)
	case len(all) > 1:
		choices := each(all, func(f found) string { return strings.TrimSpace(f.node + " " + f.Address) })
		return one, refuse(http.StatusConflict, "service %q has several peers %q: choose one with ?node= or ?address= (%s)", service, id, strings.Join(choices, ", "))
	}
	return all[0], nil
}

func (h orderHandler) operated(r *http.Request, f found, key string) Operated {
	answer := Operated{Service: r.PathValue("service"), ID: f.ID, Node: f.node, Address: f.Address, Acceptance: h.acceptance(r.Context(), key)}
	peers := h.peersThat(func(v balancer.PeerView) bool { return v.Peer.ID == f.Key })
	if len(peers) > 0 {
		answer.Peer = &peers[0]
	}
	return answer
}

// acceptance waits until Consul has an order, for a moment.
func (h orderHandler) acceptance(ctx context.Context, key string) (a Acceptance) {
	if err := h.Orders.Store.Await(ctx, key, acceptTimeout); err != nil {
		a.Pending = err.Error()
	}
	a.Shared = h.Orders.Status().Shared
	return a
}

// peersThat returns the peers in the sets of all services that f selects.
func (h orderHandler) peersThat(f func(balancer.PeerView) bool) []Peer {
	peers, set := []Peer{}, h.Orders.Set()
	for _, pool := range reading.Sorted(h.Pools()) {
		view := pool.ViewWithShares()
		for _, v := range view.Peers[:len(view.Snapshot.All)] {
			if f(v) {
				peers = append(peers, describePeer(pool.Name, v, set))
			}
		}
	}
	return peers
}

// drainNode answers POST /api/nodes/{node}/drain, with the parameters of drain. ?datacenter=
// chooses among nodes with the same name.
func (h orderHandler) drainNode(r *http.Request, o operator.Order) (any, error) {
	return h.operateNode(r, o, false, h.Orders.Give)
}

// enableNode answers POST /api/nodes/{node}/enable.
func (h orderHandler) enableNode(r *http.Request, o operator.Order) (any, error) {
	return h.operateNode(r, o, true, func(o operator.Order) error {
		_, err := h.Orders.Store.End(o.Key(), o.By)
		return err
	})
}

// operateNode carries out a drain of the node that the path names, or ends it.
func (h orderHandler) operateNode(r *http.Request, o operator.Order, ended bool, carryOut func(operator.Order) error) (any, error) {
	o, err := h.orderOfNode(r, o, ended)
	if err != nil {
		return nil, err
	}
	if err := carryOut(o); err != nil {
		return nil, err
	}
	return OperatedNode{
		Node: o.Node, Datacenter: o.Datacenter, Acceptance: h.acceptance(r.Context(), o.Key()),
		Peers: h.peersThat(func(v balancer.PeerView) bool {
			i := v.Instance()
			return i.Node == o.Node && i.Datacenter == o.Datacenter
		}),
	}, nil
}

// orderOfNode returns the drain of the node that the path names. ended: it is to be ended, so a
// data centre counts in which it stands.
func (h orderHandler) orderOfNode(r *http.Request, o operator.Order, ended bool) (operator.Order, error) {
	o.Kind, o.Node = operator.Drain, r.PathValue("node")
	datacenters := map[string]bool{}
	if ended {
		for _, standing := range h.Orders.Set().All() {
			if standing.OfNode() && standing.Node == o.Node {
				datacenters[standing.Datacenter] = true
			}
		}
	}
	if len(datacenters) == 0 { // to end what is not ordered is no error if the node exists
		for _, peer := range h.peersThat(func(v balancer.PeerView) bool { return v.Instance().Node == o.Node }) {
			datacenters[peer.Datacenter] = true
		}
	}
	if wanted := r.URL.Query().Get("datacenter"); wanted != "" {
		maps.DeleteFunc(datacenters, func(dc string, _ bool) bool { return dc != wanted })
	}
	list := slices.Sorted(maps.Keys(datacenters))
	switch len(list) {
	case 0:
		return o, refuse(http.StatusNotFound, "no peer is registered with a node %q", o.Node)
	case 1:
		o.Datacenter = list[0]
		return o, nil
	}
	for i, dc := range list {
		list[i] = cmp.Or(dc, `""`)
	}
	return o, refuse(http.StatusConflict, "several data centres have a node %q: choose one with ?datacenter= (%s)", o.Node, strings.Join(list, ", "))
}

// Orders is the body of /api/orders.
type Orders struct {
	operator.Status
	MayOrder bool `json:"may_order"` // the token of this request also allows orders
}

// orders answers GET /api/orders.
func (h orderHandler) orders(r *http.Request) (any, error) {
	tokens := h.Tokens()
	return Orders{h.Orders.Status(), tokens.Operate == "" || tokens.scopeOf(r) == scopeOperate}, nil
}
