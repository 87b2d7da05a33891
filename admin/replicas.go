package admin

import (
	"net/http"
	"strconv"

	"sluice/admin/fleet"
	"sluice/consul/registration"
)

// Replicas is the body of /api/replicas.
type Replicas struct {
	Registration registration.Status `json:"registration"`
	fleet.Report
}

// replicaHandler answers about this replica and the others.
type replicaHandler struct{ Options }

// counts is asked by each other replica in each second.
func (h replicaHandler) counts(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	after, _ := strconv.ParseUint(query.Get("after"), 10, 64) // without a number, all that is kept
	encodeJSON(w, http.StatusOK, h.Limits.Counts(query.Get("process"), after), "")
}

func (h replicaHandler) replicas(r *http.Request) (any, error) {
	status := h.Registration()
	if status.State == registration.StateOff {
		return nil, refuse(http.StatusNotFound, "the configuration has no consul.register")
	}
	status.Since, status.Leftovers = moment(status.Since), list(status.Leftovers)
	return Replicas{status, h.Replicas(r.Context())}, nil
}

// ofReplica answers other replicas, which have no token, with proofs, and everybody else with
// others.
func ofReplica(p *fleet.Proofs, f, others http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p == nil || !p.Are(r) {
			others(w, r)
			return
		}
		if err := p.Answer(w, r, f); err != nil {
			writeError(w, http.StatusUnauthorized, err.Error())
		}
	}
}
