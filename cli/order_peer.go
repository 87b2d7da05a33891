package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"sluice/admin"
	"sluice/admin/fleet"
	"sluice/discovery"
)

// waitInterval is the time between two questions of a command that waits. A question to all
// replicas costs each a millisecond or more.
const waitInterval = 250 * time.Millisecond

// give gives an order about a peer: path is drain, enable, weight or weight/release.
func (a *api) give(ctx context.Context, p admin.Peer, path string, query url.Values) (done admin.Operated, err error) {
	query.Set("node", p.Node)
	query.Set("address", p.Address)
	at := "/api/peers/" + discovery.PathSegment(p.Service) + "/" + discovery.PathSegment(p.ID) + "/" + path
	return done, a.askJSON(ctx, http.MethodPost, at, query, &done)
}

// inFlight returns the peers that f selects, and what they have in flight, for people: in this
// process, in one that an upgrade has replaced, or as drained peers in other replicas. busy is ""
// if that is nothing; unknown says which replica does not tell.
func (a *api) inFlight(ctx context.Context, f func(*admin.Peer) bool) (peers []admin.Peer, busy, unknown string, err error) {
	inflight := 0
	for _, process := range []string{"former", ""} { // the last one is what this returns
		q := peersOf(a)
		q.query.Set("process", process)
		if peers, err = q.get(ctx); err != nil {
			return nil, "", "", err
		}
		peers = slices.DeleteFunc(peers, func(p admin.Peer) bool { return !f(&p) })
		for _, p := range peers {
			inflight += p.Inflight
		}
	}
	if inflight > 0 { // the replicas need not be asked
		return peers, fmt.Sprintf("%d in flight", inflight), "", nil
	}
	all, err := a.replicas(ctx)
	for _, d := range all.Differences {
		if d.Kind == fleet.PartOrders { // a replica without the drain does not count what it has
			busy = "replicas without the order"
		}
	}
	for _, m := range all.Replicas {
		for _, u := range m.Unfinished {
			p := admin.Peer{Service: u.Service, ID: u.ID, Node: u.Node, Datacenter: u.Datacenter, Address: u.Address}
			if !m.Self && f(&p) {
				inflight += u.Inflight
				busy = fmt.Sprintf("%d in flight in the replica %s", inflight, printable(m.Name))
			}
		}
		if m.UnfinishedError != "" {
			unknown = fmt.Sprintf("the replica %s does not know what is in flight: %s", printable(m.Name), printableWhy(m.UnfinishedError))
		}
	}
	for _, u := range all.Unknown {
		unknown = fmt.Sprintf("the replica %s cannot be asked: %s", printable(u.Replica), printableWhy(u.Why))
	}
	return peers, busy, unknown, err
}

// replicas returns the replicas of sluice; none if it is not registered, and so is alone.
func (a *api) replicas(ctx context.Context) (admin.Replicas, error) {
	all, err := query[admin.Replicas]{api: a, path: "/api/replicas"}.get(ctx)
	if failure, ok := errors.AsType[refusal](err); ok && failure.status == http.StatusNotFound {
		err = nil
	}
	return all, err
}
