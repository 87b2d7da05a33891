package admin

import (
	"net/http"

	"sluice/tags"
	"sluice/tags/claim"
)

// TagProblem is an element of /api/tags: a tag that is not used as it is, or not at all.
type TagProblem struct {
	TagAsk
	Kind     string  `json:"kind"`             // bad, refused, conflict, different
	Column   int     `json:"column,omitempty"` // of the first wrong byte, from 1
	Reason   string  `json:"reason"`
	Harmless bool    `json:"harmless"`          // the route exists, without what the reason names
	LostTo   *TagAsk `json:"lost_to,omitempty"` // that has the route instead
}

// TagAsk is what instances of a service ask for with a tag.
type TagAsk struct {
	Service   string   `json:"service"`
	Instances []string `json:"instances"` // ids
	Dialect   string   `json:"dialect"`   // sluice, fabio, traefik, default_rule
	Tag       string   `json:"tag"`
}

func describeAsk(a claim.Ask) TagAsk {
	return TagAsk{a.Service, list(a.IDs()), a.Dialect, tags.Masked(a.Tag)}
}

func describeProblem(p claim.Problem) TagProblem {
	d := TagProblem{TagAsk: describeAsk(p.Ask), Kind: string(p.Kind), Column: p.Column, Reason: p.Reason, Harmless: p.Harmless}
	if p.Winner != nil {
		d.LostTo = new(describeAsk(*p.Winner))
	}
	return d
}

func (h routeHandler) tags(*http.Request) (any, error) {
	return each(h.Tags().Problems, describeProblem), nil
}
