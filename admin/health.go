package admin

import "net/http"

// Health is the body of /healthz.
type Health struct {
	Status string `json:"status"`
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready   bool     `json:"ready"`
	Missing []string `json:"missing"` // empty if ready
}

func (h *handler) healthz(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, Health{"ok"})
}

func (h *handler) readyz(w http.ResponseWriter, r *http.Request) {
	ready, missing := h.Ready()
	if !ready {
		writeJSON(w, http.StatusServiceUnavailable, Readiness{false, list(missing)})
		return
	}
	writeJSON(w, http.StatusOK, Readiness{true, []string{}})
}
