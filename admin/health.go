package admin

import "net/http"

// Health is the body of /healthz.
type Health struct {
	Status string `json:"status"`
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool `json:"ready"`
	// Missing says why it is not ready, or in spite of what it is: services that
	// have no peers because their registry does not answer for them.
	Missing []string `json:"missing"`
	// Restored are the services whose registry has not answered since the start,
	// so that their peers are those of the snapshot.
	Restored []string `json:"restored"`
}

func (h *handler) healthz(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, http.StatusOK, Health{"ok"})
}

func (h *handler) readyz(w http.ResponseWriter, r *http.Request) {
	var answer Readiness
	status := http.StatusOK
	answer.Ready, answer.Missing = h.Ready()
	if !answer.Ready {
		status = http.StatusServiceUnavailable
	}
	for _, w := range h.Watches() {
		if !w.Restored.IsZero() {
			answer.Restored = append(answer.Restored, w.Service)
		}
	}
	answer.Missing, answer.Restored = list(answer.Missing), list(answer.Restored)
	writeJSON(w, status, answer)
}
