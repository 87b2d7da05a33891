package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// drain answers POST /api/peers/{service}/{id}/drain. ?why= and ?by= are shown with the peer, ?for=
// limits the drain.
func (h *handler) drain(w http.ResponseWriter, r *http.Request) {
	h.give(w, r, operator.Order{Kind: operator.Drain})
}

// setWeight answers POST /api/peers/{service}/{id}/weight?weight=, with the parameters of drain.
func (h *handler) setWeight(w http.ResponseWriter, r *http.Request) {
	weight, err := strconv.Atoi(r.URL.Query().Get("weight"))
	if err != nil || weight < 1 || weight > discovery.MaxWeight {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("weight: want a number from 1 to %d, such as ?weight=5; a drain takes a peer out", discovery.MaxWeight))
		return
	}
	h.give(w, r, operator.Order{Kind: operator.Weight, Weight: weight})
}

// enable answers POST /api/peers/{service}/{id}/enable.
func (h *handler) enable(w http.ResponseWriter, r *http.Request) { h.end(w, r, operator.Drain) }

// releaseWeight answers POST /api/peers/{service}/{id}/weight/release.
func (h *handler) releaseWeight(w http.ResponseWriter, r *http.Request) { h.end(w, r, operator.Weight) }

// terms sets what the parameters of r say of any order, and reports whether they are valid.
func terms(w http.ResponseWriter, r *http.Request, o *operator.Order) bool {
	query := r.URL.Query()
	o.Why, o.By = query.Get("why"), query.Get("by")
	if !textsFit(w, r, "why", "by") {
		return false
	}
	if query.Has("for") {
		d, err := time.ParseDuration(query.Get("for"))
		if err != nil || d < time.Second || d > maxFor {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("for: want a duration from 1s to %v, such as ?for=30m", maxFor))
			return false
		}
		o.Until = time.Now().Add(d)
	}
	return true
}

// textsFit reports whether the parameters, which are for people, may be kept and shown. It answers
// if not.
func textsFit(w http.ResponseWriter, r *http.Request, names ...string) bool {
	for _, name := range names {
		if !operator.IsText(r.URL.Query().Get(name)) {
			writeError(w, http.StatusBadRequest, fmt.Sprintf("%s: want up to %d bytes of printable text", name, operator.MaxText))
			return false
		}
	}
	return true
}

// give gives an order about the peer that the path names.
func (h *handler) give(w http.ResponseWriter, r *http.Request, o operator.Order) {
	if !terms(w, r, &o) {
		return
	}
	found, ok := h.find(w, r, "")
	if !ok {
		return
	}
	about := operator.About(found.Key, found.node)
	o.Service, o.ID, o.Address, o.Machine, o.Node = about.Service, about.ID, about.Address, about.Machine, about.Node
	if err := h.Orders.Give(o); err != nil {
		refuseOrder(w, err)
		return
	}
	h.answerOperated(w, r, found, o.Key())
}

// end ends the order of a kind about the peer that the path names.
func (h *handler) end(w http.ResponseWriter, r *http.Request, kind operator.Kind) {
	var o operator.Order
	if !terms(w, r, &o) {
		return
	}
	found, ok := h.find(w, r, kind)
	if !ok {
		return
	}
	o = operator.About(found.Key, found.node)
	o.Kind = kind
	ended, err := h.Orders.End(o.Key(), r.URL.Query().Get("by"))
	if err != nil {
		refuseOrder(w, err)
		return
	}
	if kind == operator.Drain && !ended && found.instance != nil {
		if drain := h.Orders.Set().OfNode(*found.instance); drain != nil {
			writeError(w, http.StatusConflict, fmt.Sprintf("its node is drained: %s (POST /api/nodes/%s/enable ends it)", drain.Reason(), drain.Node))
			return
		}
	}
	h.answerOperated(w, r, found, o.Key())
}

func refuseOrder(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, operator.ErrTakeover):
		w.Header().Set("Retry-After", "5")
		writeError(w, http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, operator.ErrTooMany):
		writeError(w, http.StatusConflict, err.Error())
	default:
		writeError(w, http.StatusBadRequest, err.Error())
	}
}

// found is a peer that an order is about.
type found struct {
	discovery.Key
	node     string
	instance *discovery.Instance // nil: it is absent
}

// find returns the peer that the path names. ?node= and ?address= choose among peers with the same
// id. An absent one is found if an order of the kind ended is about it. It answers if it finds none.
func (h *handler) find(w http.ResponseWriter, r *http.Request, ended operator.Kind) (one found, ok bool) {
	service, id, query := r.PathValue("service"), r.PathValue("id"), r.URL.Query()
	node, address := query.Get("node"), query.Get("address")
	var all []found
	consider := func(f found) {
		if f.ID == id && (node == "" || f.node == node) && (address == "" || f.Address == address) &&
			!slices.ContainsFunc(all, func(other found) bool { return other.Key == f.Key }) {
			all = append(all, f)
		}
	}
	// In the registry the service may have another name, which the instances and the orders have.
	known, names := false, map[string]bool{service: true}
	for _, pool := range reading.Sorted(h.Pools()) {
		if pool.Name() != service {
			continue
		}
		known = true
		for _, peer := range pool.Snapshot().All {
			i := peer.Instance()
			names[peer.ID.Service] = true
			consider(found{peer.ID, i.Node, &i})
		}
	}
	for _, o := range h.Orders.Set().All() {
		if o.Kind == ended && !o.OfNode() {
			known = known || o.Service == service
			if names[o.Service] {
				consider(found{o.Peer(), o.Node, nil})
			}
		}
	}
	switch {
	case !known:
		writeError(w, http.StatusNotFound, fmt.Sprintf("no service %q", service))
	case len(all) == 0:
		writeError(w, http.StatusNotFound, fmt.Sprintf("service %q has no peer %q", service, id))
	case len(all) > 1:
		writeError(w, http.StatusConflict, fmt.Sprintf("service %q has several peers %q: choose one with ?node= or ?address= (%s)", service, id, choices(all)))
	default:
		return all[0], true
	}
	return one, false
}

func choices(all []found) string {
	var list []string
	for _, f := range all {
		list = append(list, strings.TrimSpace(f.node+" "+f.Address))
	}
	return strings.Join(list, ", ")
}

func (h *handler) answerOperated(w http.ResponseWriter, r *http.Request, f found, key string) {
	answer := Operated{Service: r.PathValue("service"), ID: f.ID, Node: f.node, Address: f.Address, Acceptance: h.acceptance(r.Context(), key)}
	peers := h.peersThat(func(v balancer.PeerView) bool { return v.Peer.ID == f.Key })
	if len(peers) > 0 {
		answer.Peer = &peers[0]
	}
	writeJSON(w, http.StatusOK, answer)
}

// acceptance waits until Consul has an order, for a moment.
func (h *handler) acceptance(ctx context.Context, key string) (a Acceptance) {
	if err := h.Orders.Await(ctx, key, acceptTimeout); err != nil {
		a.Pending = err.Error()
	}
	a.Shared = h.Orders.Status().Shared
	return a
}

// peersThat returns the peers in the sets of all services that f selects.
func (h *handler) peersThat(f func(balancer.PeerView) bool) []Peer {
	peers, set := []Peer{}, h.Orders.Set()
	for _, pool := range reading.Sorted(h.Pools()) {
		view := pool.View()
		for _, v := range view.Peers[:len(view.Snapshot.All)] {
			if f(v) {
				peers = append(peers, describePeer(pool.Name(), v, set))
			}
		}
	}
	return peers
}

// drainNode answers POST /api/nodes/{node}/drain, with the parameters of drain. ?datacenter= chooses
// among nodes with the same name.
func (h *handler) drainNode(w http.ResponseWriter, r *http.Request) {
	node := r.PathValue("node")
	o := operator.Order{Kind: operator.Drain, Node: node}
	if !terms(w, r, &o) {
		return
	}
	datacenters := map[string]bool{}
	for _, peer := range h.peersThat(func(v balancer.PeerView) bool { return v.Instance().Node == node }) {
		datacenters[peer.Datacenter] = true
	}
	if !h.chooseDatacenter(w, r, &o, datacenters) {
		return
	}
	if err := h.Orders.Give(o); err != nil {
		refuseOrder(w, err)
		return
	}
	h.answerOperatedNode(w, r, &o)
}

// enableNode answers POST /api/nodes/{node}/enable.
func (h *handler) enableNode(w http.ResponseWriter, r *http.Request) {
	o := operator.Order{Kind: operator.Drain, Node: r.PathValue("node")}
	if !terms(w, r, &o) {
		return
	}
	datacenters := map[string]bool{}
	for _, standing := range h.Orders.Set().All() {
		if standing.OfNode() && standing.Node == o.Node {
			datacenters[standing.Datacenter] = true
		}
	}
	if len(datacenters) == 0 { // nothing is ordered: no error if the node exists
		for _, peer := range h.peersThat(func(v balancer.PeerView) bool { return v.Instance().Node == o.Node }) {
			datacenters[peer.Datacenter] = true
		}
	}
	if !h.chooseDatacenter(w, r, &o, datacenters) {
		return
	}
	if _, err := h.Orders.End(o.Key(), o.By); err != nil {
		refuseOrder(w, err)
		return
	}
	h.answerOperatedNode(w, r, &o)
}

// chooseDatacenter sets the data centre of a node, and answers if there is not exactly one.
func (h *handler) chooseDatacenter(w http.ResponseWriter, r *http.Request, o *operator.Order, datacenters map[string]bool) bool {
	var list []string
	for dc := range datacenters {
		if wanted := r.URL.Query().Get("datacenter"); wanted == "" || wanted == dc {
			list = append(list, dc)
		}
	}
	slices.Sort(list)
	switch len(list) {
	case 0:
		writeError(w, http.StatusNotFound, fmt.Sprintf("no peer is registered with a node %q", o.Node))
		return false
	case 1:
		o.Datacenter = list[0]
		return true
	}
	for i, dc := range list {
		list[i] = cmp.Or(dc, `""`)
	}
	writeError(w, http.StatusConflict, fmt.Sprintf("several data centres have a node %q: choose one with ?datacenter= (%s)", o.Node, strings.Join(list, ", ")))
	return false
}

func (h *handler) answerOperatedNode(w http.ResponseWriter, r *http.Request, o *operator.Order) {
	writeJSON(w, http.StatusOK, OperatedNode{
		Node: o.Node, Datacenter: o.Datacenter, Acceptance: h.acceptance(r.Context(), o.Key()),
		Peers: h.peersThat(func(v balancer.PeerView) bool {
			i := v.Instance()
			return i.Node == o.Node && i.Datacenter == o.Datacenter
		}),
	})
}

// Orders is the body of /api/orders.
type Orders struct {
	operator.Status
	MayOrder bool `json:"may_order"` // the token of this request also allows orders
}

// orders answers GET /api/orders.
func (h *handler) orders(w http.ResponseWriter, r *http.Request) {
	tokens := h.Tokens()
	writeJSON(w, http.StatusOK, Orders{h.Orders.Status(), tokens.Operate == "" || tokens.scopeOf(r) == scopeOperate})
}

// order accepts only POST requests, and none that a browser sends for a page of another
// origin.
func (h *handler) order(next http.HandlerFunc) http.HandlerFunc {
	origins := http.NewCrossOriginProtection()
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			writeError(w, http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here")
			return
		}
		if err := origins.Check(r); err != nil {
			writeError(w, http.StatusForbidden, err.Error())
			return
		}
		next(w, r)
	}
}
