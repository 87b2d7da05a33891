package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sluice/operator"
)

// SplitState is an element of /api/shares: the split of a service with the share of one group.
type SplitState struct {
	Service    string          `json:"service"`
	Group      string          `json:"group"`
	Share      float64         `json:"share"`            // in use
	Configured float64         `json:"configured"`       // in the configuration
	Given      *operator.Share `json:"given,omitempty"`  // absent: the share is that of the configuration
	Judge      *JudgeState     `json:"judge,omitempty"`  // absent: the service has no judge
	Shared     *SharedState    `json:"shared,omitempty"` // absent: each replica is on its own
}

// JudgeState is what a judge has found in the present release.
type JudgeState struct {
	Since        time.Time `json:"since,omitzero"` // when the release began; absent: the group has no share
	Paused       bool      `json:"paused"`         // an operator has set the share
	Evidence     float64   `json:"evidence"`       // that the group fails more often: 1 is none, 1000 is enough; 0 without a release
	SlowEvidence float64   `json:"slow_evidence"`  // that it is slower than allowed, with the present share
	P90MS        float64   `json:"p90_ms"`         // of its last 512 attempts; 0: fewer than 100
	RestP90MS    float64   `json:"rest_p90_ms"`    // likewise of the rest
	Verdict      string    `json:"verdict,omitempty"`
}

// SharedState is what this replica knows of the others.
type SharedState struct {
	Judges  int    `json:"judges"`          // replicas that judge, this one included
	Leads   bool   `json:"leads"`           // this one moves shares on
	Pending bool   `json:"pending"`         // the others do not have the share yet
	Error   string `json:"error,omitempty"` // why Consul cannot be followed
}

// ShareOrder is an operator's order about the split of a service.
type ShareOrder struct {
	Service string
	Verb    ShareVerb
	Group   string  // empty: that of the split
	Share   float64 // with ShareSet
	Why     string
}

// ShareVerb is the kind of a ShareOrder, as in its path.
type ShareVerb string

const (
	ShareSet     ShareVerb = "set"     // uses a share; the judge changes nothing
	SharePause   ShareVerb = "pause"   // keeps the share; the judge changes nothing
	ShareResume  ShareVerb = "resume"  // keeps the share; the judge goes on
	ShareRelease ShareVerb = "release" // returns to the share of the configuration
)

// Errors of Options.OrderShare.
var (
	ErrNoSplit   = errors.New("no service with this name and a split that has the share of one group")
	ErrNoGroup   = errors.New("the split has another group")
	ErrNotGiven  = errors.New("the share is that of the configuration")
	ErrNoJudge   = errors.New("the service has no judge")
	ErrNotPaused = errors.New("the judge is not paused")
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
	h.orderShare(w, r, ShareOrder{Verb: ShareSet, Group: r.URL.Query().Get("group"), Share: share})
}

// changeShare answers POST /api/shares/{service}/{verb}.
func (h *handler) changeShare(verb ShareVerb) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h.orderShare(w, r, ShareOrder{Verb: verb}) }
}

// orderShare carries out o for the service that the path names.
func (h *handler) orderShare(w http.ResponseWriter, r *http.Request, o ShareOrder) {
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
		if errors.Is(err, ErrNoSplit) || errors.Is(err, ErrNoGroup) || errors.Is(err, ErrNotGiven) {
			status = http.StatusNotFound
		}
		writeError(w, status, fmt.Sprintf("service %q: %v", o.Service, err))
		return
	}
	event := h.Log.Info().Str("service", o.Service).Str("order", string(o.Verb))
	if o.Verb == ShareSet {
		event = event.Float64("share", o.Share)
	}
	event.Str("why", o.Why).Str("client", r.RemoteAddr).Msg("an operator's order")
	h.shares(w, r)
}
