package admin

import (
	"net/http"
	"time"

	"sluice/config"
	"sluice/operator"
)

// Health is the body of /healthz.
type Health struct {
	Status string `json:"status"`
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool `json:"ready"`
	// Missing lists why it is not ready; if it is ready, the services without peers
	// because their registry does not answer.
	Missing []string `json:"missing"`
	// Restored are the services whose peers come from the snapshot, because the
	// registry has not answered since the start.
	Restored []string `json:"restored"`
	// Certificates lists certificates that expire soon, are not valid, or whose files
	// cannot be used. They do not affect Ready.
	Certificates []string `json:"certificates"`
}

// programHandler answers about the running program.
type programHandler struct{ Options }

func healthz(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, Health{"ok"})
}

// readyz names services and files only to clients with the right to read.
func (h programHandler) readyz(w http.ResponseWriter, r *http.Request) {
	answer, status := h.readiness(), http.StatusOK
	if h.Tokens().denial(r, scopeLook) != nil {
		answer.Missing, answer.Restored, answer.Certificates = []string{}, []string{}, []string{}
	}
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, answer)
}

func (h programHandler) readiness() (answer Readiness) {
	answer.Ready, answer.Missing = h.Ready()
	for _, w := range h.Watches() {
		if !w.Restored.IsZero() {
			answer.Restored = append(answer.Restored, w.Service)
		}
	}
	answer.Missing, answer.Restored = list(answer.Missing), list(answer.Restored)
	answer.Certificates = list(h.certificateProblems(time.Now()))
	return answer
}

// setLogLevel answers POST /api/log/{level}; the level "release" returns to the configuration's.
func (h programHandler) setLogLevel(r *http.Request, o operator.Order) (any, error) {
	level := r.PathValue("level")
	switch {
	case level == "release":
		level = ""
	case !config.IsLogLevel(level):
		return nil, refuse(http.StatusBadRequest, "level %q: want debug, info, warn, error or release", level)
	}
	if err := h.Ordered.SetLogLevel(level, o.By); err != nil {
		return nil, err
	}
	return h.Ordered.LogLevel(), nil
}

// turnReady answers POST /api/ready/off, after which sluice is not ready and serves, and
// /api/ready/on.
func (h programHandler) turnReady(off bool) func(*http.Request, operator.Order) (any, error) {
	return func(r *http.Request, o operator.Order) (any, error) {
		if err := h.Ordered.TurnReady(off, o.Why, o.By); err != nil {
			return nil, err
		}
		return h.readiness(), nil
	}
}
