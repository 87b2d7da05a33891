package route

import (
	"net/http"
	"time"

	"sluice/route/places"
)

// Limits of answers by a [Handler].
const (
	handlerPlaces = 16               // answers that are made or sent at a time
	handlerShare  = 4                // of one client
	HandlerWait   = 5 * time.Second  // for a place
	HandlerTime   = 30 * time.Second // to make an answer
)

// A Handler answers the requests of a route in this process, in place of a service. Its answers are
// in memory until the client has them, so each has a place.
type Handler struct {
	http.Handler
	Places *places.Places
}

// NewHandler returns a handler with places of its own.
func NewHandler(h http.Handler) *Handler {
	return &Handler{Handler: h, Places: places.New(handlerPlaces, handlerShare)}
}
