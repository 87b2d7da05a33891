package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"sluice/balancer"
	"sluice/discovery"
)

// maxWhy bounds an operator's reason in bytes.
const maxWhy = 200

// drain answers POST /api/peers/{service}/{id}/drain. ?why= is shown with the peer.
func (h *handler) drain(w http.ResponseWriter, r *http.Request) {
	why := r.URL.Query().Get("why")
	if !isWhy(why) {
		writeError(w, http.StatusBadRequest, fmt.Sprintf("why: want up to %d bytes of printable text", maxWhy))
		return
	}
	h.operate(w, r, true, cmp.Or(why, "by an operator"))
}

// isWhy reports whether an operator's reason may be kept and shown.
func isWhy(why string) bool {
	return len(why) <= maxWhy && !strings.ContainsFunc(why, func(c rune) bool { return !unicode.IsPrint(c) })
}

// enable answers POST /api/peers/{service}/{id}/enable.
func (h *handler) enable(w http.ResponseWriter, r *http.Request) {
	h.operate(w, r, false, "")
}

// operate drains or enables the peer that the path names. ?node= and ?address= choose
// among peers with the same id.
func (h *handler) operate(w http.ResponseWriter, r *http.Request, down bool, why string) {
	service, id, query := r.PathValue("service"), r.PathValue("id"), r.URL.Query()
	node, address := query.Get("node"), query.Get("address")
	pools := slices.DeleteFunc(h.sortedPools(), func(p *balancer.Pool) bool { return p.Name() != service })
	if len(pools) == 0 {
		writeError(w, http.StatusNotFound, fmt.Sprintf("no service %q", service))
		return
	}
	var found []choice
	consider := func(k discovery.Key, registered string) {
		if k.ID == id && (node == "" || registered == node) && (address == "" || k.Address == address) {
			found = append(found, choice{k, registered})
		}
	}
	for _, pool := range pools {
		for _, peer := range pool.Snapshot().All {
			consider(peer.ID, peer.Instance().Node)
		}
		for _, d := range pool.StandingDrains() {
			if !down {
				consider(d.ID, d.Node)
			}
		}
	}
	switch len(found) {
	case 0:
		writeError(w, http.StatusNotFound, fmt.Sprintf("service %q has no peer %q", service, id))
		return
	case 1:
	default:
		writeError(w, http.StatusConflict, fmt.Sprintf("service %q has several peers %q: choose one with ?node= or ?address= (%s)", service, id, choices(found)))
		return
	}
	for _, pool := range pools {
		if !pool.SetReason(found[0].Key, balancer.ReasonDrain, down, why) {
			continue
		}
		h.Log.Info().Str("service", service).Str("peer", id).Str("address", found[0].Address).
			Str("client", r.RemoteAddr).Bool("drain", down).Str("why", why).Msg("an operator's order")
		answer := Operated{Service: service, ID: id, Node: found[0].node, Address: found[0].Address}
		view := pool.View()
		for _, peer := range view.Peers[:len(view.Snapshot.All)] {
			if peer.Peer.ID == found[0].Key {
				p := describePeer(service, peer)
				answer.Peer = &p
			}
		}
		writeJSON(w, http.StatusOK, answer)
		return
	}
	writeError(w, http.StatusNotFound, fmt.Sprintf("peer %q of service %q has just left", id, service))
}

// Operated is the answer to drain and enable.
type Operated struct {
	Service string `json:"service"`
	ID      string `json:"id"`
	Node    string `json:"node"`
	Address string `json:"address"`
	Peer    *Peer  `json:"peer"` // null: the instance is absent
}

type choice struct {
	discovery.Key
	node string
}

func choices(found []choice) string {
	var list []string
	for _, c := range found {
		list = append(list, strings.TrimSpace(c.node+" "+c.Address))
	}
	return strings.Join(list, ", ")
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
