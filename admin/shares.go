package admin

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// GivenShare is a share that is used in place of the configuration's.
type GivenShare struct {
	Group      string    `json:"group"`
	Share      float64   `json:"share"`
	Configured float64   `json:"configured"`
	By         string    `json:"by"` // judge or operator
	Why        string    `json:"why,omitempty"`
	Since      time.Time `json:"since"`
}

// SplitState is an element of /api/shares: the split of a service with the share of one group.
type SplitState struct {
	Service    string      `json:"service"`
	Group      string      `json:"group"`
	Share      float64     `json:"share"`           // in use
	Configured float64     `json:"configured"`      // in the configuration
	Given      *GivenShare `json:"given,omitempty"` // absent: the share is that of the configuration
	Judge      *JudgeState `json:"judge,omitempty"` // absent: the service has no judge
}

// JudgeState is what a judge has found in the present release.
type JudgeState struct {
	Since    time.Time `json:"since,omitzero"` // when the release began; absent: the group has no share
	Evidence float64   `json:"evidence"`       // that the group is worse: 1 is none, 1000 is enough; 0 without a release
	Verdict  string    `json:"verdict,omitempty"`
}

// shares answers GET /api/shares.
func (h *handler) shares(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, h.Splits())
}

// giveShare answers POST /api/shares/{service}?share=. ?why= is shown with it.
func (h *handler) giveShare(w http.ResponseWriter, r *http.Request) {
	service, why := r.PathValue("service"), r.URL.Query().Get("why")
	share, err := strconv.ParseFloat(r.URL.Query().Get("share"), 64)
	switch {
	case err != nil || !(share >= 0 && share <= 1):
		writeError(w, http.StatusBadRequest, "share: want a number from 0 to 1, such as ?share=0.05")
		return
	case len(why) > maxWhy || strings.ContainsFunc(why, func(c rune) bool { return !unicode.IsPrint(c) }):
		writeError(w, http.StatusBadRequest, fmt.Sprintf("why: want up to %d bytes of printable text", maxWhy))
		return
	case !h.GiveShare(service, share, why):
		writeError(w, http.StatusNotFound, fmt.Sprintf("no service %q with a split that has the share of one group", service))
		return
	}
	h.Log.Info().Str("service", service).Float64("share", share).Str("why", why).Str("client", r.RemoteAddr).Msg("an operator's order")
	h.shares(w, r)
}

// releaseShare answers POST /api/shares/{service}/release.
func (h *handler) releaseShare(w http.ResponseWriter, r *http.Request) {
	service := r.PathValue("service")
	if !h.ReleaseShare(service) {
		writeError(w, http.StatusNotFound, fmt.Sprintf("service %q has no given share", service))
		return
	}
	h.Log.Info().Str("service", service).Str("client", r.RemoteAddr).Msg("an operator's order: the share of the configuration")
	h.shares(w, r)
}
