package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sluice/config"
)

type Revision struct {
	Number  uint64    `json:"number"` // from 1 in each process
	Time    time.Time `json:"time"`
	Source  string    `json:"source"` // the file, or "command line"
	Hash    string    `json:"hash"`   // of the file's text
	Pending []string  `json:"pending"`
}

// AppliedConfig is the body of /api/config.
type AppliedConfig struct {
	Revision
	Config  *config.Config `json:"config"` // keys as in the file, defaults written out, secrets masked
	Reloads Reloads        `json:"reloads"`
}

// RevisionConfig is the body of /api/config/history/{number}.
type RevisionConfig struct {
	Revision
	Config *config.Config `json:"config"`
}

// Reloads counts loaded configurations.
type Reloads struct {
	Applied   uint64   `json:"applied"`
	Refused   uint64   `json:"refused"`
	LastError *Refusal `json:"last_error"` // null if the latest load was not refused
}

// Refusal is the error of the latest load.
type Refusal struct {
	Time   time.Time `json:"time"`
	Source string    `json:"source"`
	Errors []string  `json:"errors"`
}

func describeRevision(r config.Revision) Revision {
	return Revision{r.Number, moment(r.Time), r.Source, r.Hash, list(r.Pending)}
}

func describeReloads(r config.Reloads) Reloads {
	d := Reloads{Applied: r.Applied, Refused: r.Refused}
	if r.Last == nil {
		return d
	}
	d.LastError = &Refusal{Time: moment(r.Last.Time), Source: r.Last.Source}
	var several config.Errors
	if errors.As(r.Last.Err, &several) {
		for _, err := range several {
			d.LastError.Errors = append(d.LastError.Errors, err.Error())
		}
	} else {
		d.LastError.Errors = []string{r.Last.Err.Error()}
	}
	return d
}

func (h *handler) config(w http.ResponseWriter, r *http.Request) {
	current := h.History.Current()
	writeJSON(w, http.StatusOK, AppliedConfig{
		Revision: describeRevision(current),
		Config:   current.Config,
		Reloads:  describeReloads(h.History.Reloads()),
	})
}

func (h *handler) configHistory(w http.ResponseWriter, r *http.Request) {
	revisions := []Revision{}
	for _, rev := range h.History.Revisions() {
		revisions = append(revisions, describeRevision(rev))
	}
	writeJSON(w, http.StatusOK, revisions)
}

func (h *handler) configRevision(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err == nil {
		for _, rev := range h.History.Revisions() {
			if rev.Number == number {
				writeJSON(w, http.StatusOK, RevisionConfig{describeRevision(rev), rev.Config})
				return
			}
		}
	}
	writeError(w, http.StatusNotFound, fmt.Sprintf("no revision %q", r.PathValue("number")))
}
