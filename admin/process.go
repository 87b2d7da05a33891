package admin

import (
	"fmt"
	"net/http"
	"time"

	"sluice/config"
	"sluice/operator"
)

// LogLevel is the answer of /api/log.
type LogLevel struct {
	Level      string    `json:"level"`
	Configured string    `json:"configured"` // log.level
	By         string    `json:"by,omitempty"`
	Since      time.Time `json:"since,omitzero"` // when an operator set Level; absent: it is that of the configuration
}

// logLevel answers GET /api/log.
func (h *handler) logLevel(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, h.LogLevel())
}

// setLogLevel answers POST /api/log/{level}; the level "release" is that of the configuration.
func (h *handler) setLogLevel(w http.ResponseWriter, r *http.Request) {
	var o operator.Order
	if !terms(w, r, &o) {
		return
	}
	level := r.PathValue("level")
	switch {
	case level == "release":
		level = ""
	case !config.IsLogLevel(level):
		writeError(w, http.StatusBadRequest, fmt.Sprintf("level %q: want debug, info, warn, error or release", level))
		return
	}
	if err := h.SetLogLevel(level, o.By); err != nil {
		refuseOrder(w, err)
		return
	}
	h.logLevel(w, r)
}

// ready answers GET /api/ready: what /readyz says, always with status 200.
func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, h.describeReadiness())
}

// readyOff answers POST /api/ready/off: sluice is not ready, and serves.
func (h *handler) readyOff(w http.ResponseWriter, r *http.Request) { h.turnReady(w, r, true) }

// readyOn answers POST /api/ready/on.
func (h *handler) readyOn(w http.ResponseWriter, r *http.Request) { h.turnReady(w, r, false) }

func (h *handler) turnReady(w http.ResponseWriter, r *http.Request, off bool) {
	var o operator.Order
	if !terms(w, r, &o) {
		return
	}
	if err := h.TurnReady(off, o.Why, o.By); err != nil {
		refuseOrder(w, err)
		return
	}
	h.ready(w, r)
}
