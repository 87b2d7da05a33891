package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"sluice/operator"
	"sluice/release"
)

// shares answers GET /api/shares.
func (h *handler) shares(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, h.Splits())
}

// setShare answers POST /api/shares/{service}?share=. ?group= names the group that is meant, and
// ?why= is shown with the share.
func (h *handler) setShare(w http.ResponseWriter, r *http.Request) {
	share, err := strconv.ParseFloat(r.URL.Query().Get("share"), 64)
	if err != nil || !(share >= 0 && share <= 1) {
		writeError(w, http.StatusBadRequest, "share: want a number from 0 to 1, such as ?share=0.05")
		return
	}
	h.orderShare(w, r, release.Order{Verb: release.Set, Group: r.URL.Query().Get("group"), Share: share})
}

// changeShare answers POST /api/shares/{service}/{verb}.
func (h *handler) changeShare(verb release.Verb) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h.orderShare(w, r, release.Order{Verb: verb}) }
}

// orderShare carries out o for the service that the path names.
func (h *handler) orderShare(w http.ResponseWriter, r *http.Request, o release.Order) {
	o.Service, o.Why = r.PathValue("service"), r.URL.Query().Get("why")
	if !textsFit(w, r, "why") {
		return
	}
	switch err := h.OrderShare(o); {
	case errors.Is(err, operator.ErrTakeover):
		refuseOrder(w, err)
		return
	case err != nil:
		status := http.StatusConflict
		if errors.Is(err, release.ErrNoSplit) || errors.Is(err, release.ErrNoGroup) || errors.Is(err, release.ErrNotGiven) {
			status = http.StatusNotFound
		}
		writeError(w, status, fmt.Sprintf("service %q: %v", o.Service, err))
		return
	}
	event := h.Log.Info().Str("service", o.Service).Str("order", string(o.Verb))
	if o.Verb == release.Set {
		event = event.Float64("share", o.Share)
	}
	event.Str("why", o.Why).Str("client", r.RemoteAddr).Msg("an operator's order")
	h.shares(w, r)
}
