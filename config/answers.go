package config

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"mime"
	"slices"
	"strconv"
	"strings"

	"sluice/config/decoding"
	"sluice/route"
	"sluice/route/pages"
)

// DirectResponse answers the requests of a route.
type DirectResponse struct {
	Status      int               `key:"status" default:"200" min:"200" max:"599"`
	Body        string            `key:"body"`               // empty: File
	File        string            `key:"file" format:"file"` // empty: Body, or else none
	ContentType string            `key:"content_type" default:"text/plain; charset=utf-8" format:"content_type"`
	Headers     map[string]string `key:"headers" format:"token"` // as in route.NewHeaderEdits
}

// ErrorPage is the body of answers of sluice's own with some statuses.
type ErrorPage struct {
	Status      Statuses `key:"status" format:"statuses" required:"yes"`
	File        string   `key:"file" format:"file" required:"yes"`
	ContentType string   `key:"content_type" default:"text/html; charset=utf-8" format:"content_type"`
}

// RouteErrorPage is an ErrorPage of a route.
type RouteErrorPage struct {
	ErrorPage
	Peers bool `key:"peers" default:"false"` // also in place of what peers answer with these statuses
}

// safeMethods are the ones that need no preflight (Fetch standard, "CORS-safelisted method").
var safeMethods = []string{"GET", "HEAD", "POST"}

// newPage returns a page without its body, which outlives a configuration.
func newPage(contentType string) *route.Page {
	mediaType, _, _ := mime.ParseMediaType(contentType) // the decoder has checked it
	return &route.Page{ContentType: contentType, JSON: mediaType == "application/json" || strings.HasSuffix(mediaType, "+json")}
}

// checkPage checks that the file of a page can be used.
func checkPage(d *decoder, key, path string) {
	if path == "" || d.Failed(key) {
		return
	}
	if _, err := pages.Open(path); err != nil {
		d.Refuse(key, path, fmt.Sprintf("cannot be used: %v: want a file of up to %d bytes", err, pages.MaxBytes))
	}
}

func (r *DirectResponse) build(d *decoder, key string) *route.DirectResponse {
	built := &route.DirectResponse{Status: r.Status}
	bodiless := r.Status == 204 || r.Status == 205 || r.Status == 304
	switch {
	case r.Body != "" && r.File != "":
		d.Refuse(decoding.Join(key, "file"), r.File, "not with body: want one of them")
	case bodiless && r.Body+r.File != "":
		d.Refuse(decoding.Join(key, "status"), strconv.Itoa(r.Status), "not with a body, which answers with this status do not have")
	case r.Body+r.File != "":
		built.Page = newPage(r.ContentType)
		if r.Body != "" {
			built.Page.Body = pages.Text(r.Body)
		}
	}
	checkPage(d, decoding.Join(key, "file"), r.File)
	edits, err := route.NewHeaderEdits(r.Headers, nil, nil)
	if wrong, ok := errors.AsType[*route.OptionError](err); ok {
		d.Refuse(decoding.Join(key, "headers."+wrong.Value), "", wrong.Err.Error())
	}
	for name := range r.Headers {
		switch strings.ToLower(name) {
		case "content-type":
			d.Refuse(decoding.Join(key, "headers."+name), "", "want content_type instead")
		case "date":
			d.Refuse(decoding.Join(key, "headers."+name), "", "cannot be set: sluice writes it")
		}
	}
	built.Fields = edits.Added
	return built
}

// build checks a page at a key, and returns it without its body.
func (p *ErrorPage) build(d *decoder, key string) route.ErrorPage {
	for status := 200; status < 400; status++ {
		if p.Status.Value.Has(status) {
			d.Refuse(decoding.Join(key, "status"), p.Status.Text, "want statuses of errors, from 400 to 599")
			break
		}
	}
	checkPage(d, decoding.Join(key, "file"), p.File)
	return route.ErrorPage{Page: newPage(p.ContentType), Statuses: p.Status.Value}
}

func buildErrorPages(d *decoder, key string, list []RouteErrorPage) (built route.ErrorPages) {
	for i := range list {
		page := list[i].build(d, fmt.Sprintf("%s[%d]", key, i))
		page.Peers = list[i].Peers
		built = append(built, page)
	}
	return built
}

// build builds the default pages of sluice's own answers, without their bodies.
func (c *Client) build(d *decoder) {
	c.errorPages = nil
	for i := range c.ErrorPages {
		c.errorPages = append(c.errorPages, c.ErrorPages[i].build(d, fmt.Sprintf("client.error_pages[%d]", i)))
	}
}

// BuiltErrorPages returns the pages of ErrorPages, without their bodies. The caller must not change
// them.
func (c *Client) BuiltErrorPages() route.ErrorPages { return c.errorPages }

// buildCORS completes the options, and builds them.
func buildCORS(d *decoder, key string, c *route.CORSOptions) *route.CORS {
	if len(c.AllowMethods) == 0 {
		c.AllowMethods = safeMethods
	}
	built, err := route.NewCORS(*c)
	refuseOption(d, key, err)
	return built
}

// checkCORS checks what CORS and other keys of a route say together.
func (r *Route) checkCORS(d *decoder, key string) {
	if r.CORS == nil {
		return
	}
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, "OPTIONS") && d.by&(ByTag|ByRegistration) == 0 {
		d.Refuse(decoding.Join(key, "methods"), strings.Join(r.Methods, ", "), "want OPTIONS too: with cors, the route answers preflights, which have this method")
	}
	check := func(list string, names iter.Seq[string]) {
		for name := range names {
			if slices.Contains(route.CORSFields, strings.ToLower(name)) {
				d.Refuse(decoding.Join(key, list+"."+name), "", "cannot be edited: cors writes it")
			}
		}
	}
	if e := r.ResponseHeaders; e != nil {
		check("response_headers.set", maps.Keys(e.Set))
		check("response_headers.add", maps.Keys(e.Add))
	}
	if a := r.DirectResponse; a != nil {
		check("direct_response.headers", maps.Keys(a.Headers))
	}
}
