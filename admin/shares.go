package admin

import (
	"errors"
	"net/http"

	"sluice/config"
	"sluice/operator"
	"sluice/release"
)

// shareHandler changes shares.
type shareHandler struct{ Options }

// set answers POST /api/shares/{service}?share=. ?group= names the group that is meant, and
// ?why= is shown with the share.
func (h shareHandler) set(r *http.Request) (any, error) {
	share, err := config.ParseShare(r.URL.Query().Get("share"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w, such as ?share=0.05", err)
	}
	return h.order(r, release.Order{Verb: release.Set, Group: r.URL.Query().Get("group"), Share: share})
}

// change answers POST /api/shares/{service}/{verb}.
func (h shareHandler) change(verb release.Verb) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) { return h.order(r, release.Order{Verb: verb}) }
}

// order carries out o for the service that the path names.
func (h shareHandler) order(r *http.Request, o release.Order) (any, error) {
	o.Service, o.Why = r.PathValue("service"), r.URL.Query().Get("why")
	if err := checkTexts(r, "why"); err != nil {
		return nil, err
	}
	if r.URL.Query().Has("for") {
		return nil, errLasting
	}
	switch err := h.OrderShare(o); {
	case err == nil:
	case errors.Is(err, operator.ErrTakeover):
		return nil, err
	case errors.Is(err, release.ErrNoSplit) || errors.Is(err, release.ErrNoGroup) || errors.Is(err, release.ErrNoOverride):
		return nil, refuse(http.StatusNotFound, "service %q: %w", o.Service, err)
	default:
		return nil, refuse(http.StatusConflict, "service %q: %w", o.Service, err)
	}
	event := h.Log.Info().Str("service", o.Service).Str("order", string(o.Verb))
	if o.Verb == release.Set {
		event = event.Float64("share", o.Share)
	}
	event.Str("why", o.Why).Str("client", r.RemoteAddr).Msg("an operator's order")
	return h.Splits(), nil
}
