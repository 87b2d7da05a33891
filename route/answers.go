package route

import (
	"sluice/healthcheck/statuses"
	"sluice/route/pages"
)

// A DirectResponse is the answer to every request of a route, in place of a service's.
type DirectResponse struct {
	Status int
	Page   *Page // nil: sluice's own words from 400 on, else nothing
	Fields []FieldLine
}

// A Page is a body with its type.
type Page struct {
	*pages.Body
	ContentType string
	JSON        bool // the type is JSON
}

// ErrorPages are the pages of a route for answers with an error, or the default ones of all.
type ErrorPages []ErrorPage

// An ErrorPage is the page for some statuses.
type ErrorPage struct {
	*Page
	Statuses statuses.Set
	Peers    bool // also in place of what a peer answers with one of them
}

// Of returns the page for an answer of sluice's own, or with ofPeer of a peer; nil: there is none.
// json: the client asks for JSON, and gets no other pages.
func (p ErrorPages) Of(status int, ofPeer, json bool) *Page {
	for i := range p {
		if e := &p[i]; e.Statuses.Has(status) && (e.Peers || !ofPeer) && (e.JSON || !json) {
			return e.Page
		}
	}
	return nil
}
