package admin

import "net/http"

// TagProblem is an element of /api/tags: a tag that is not used as it is, or not at all.
type TagProblem struct {
	Service   string   `json:"service"`
	Instances []string `json:"instances"` // ids, at most 10
	Dialect   string   `json:"dialect"`   // sluice, fabio, traefik
	Tag       string   `json:"tag"`
	Column    int      `json:"column,omitempty"` // of the first wrong byte, from 1
	Reason    string   `json:"reason"`
	Harmless  bool     `json:"harmless"` // the route exists, without what the reason names
}

func (h *handler) tags(w http.ResponseWriter, _ *http.Request) {
	problems := []TagProblem{}
	for _, p := range h.Tags() {
		problems = append(problems, TagProblem{p.Service, list(p.Instances), p.Dialect, p.Tag, p.Column, p.Reason, p.Harmless})
	}
	writeJSON(w, http.StatusOK, problems)
}
