package traefik

import (
	"maps"
	"strings"

	"sluice/tags"
)

// effects collects what a router's middlewares and service do to its routes.
type effects struct {
	reader *reader
	of     section                                                // of the router
	kinds  map[string]func(e *effects, kind label, options *part) // of its middlewares
	tags   []string                                               // that have a part in the routes
	keys   tags.Keys
	strip  []string // prefixes, of which the first that fits is stripped
	step   step     // the last change of the path
	uses   int      // of middlewares

	secure   bool      // only requests over TLS
	toScheme tags.Keys // redirect of requests with another scheme
	scheme   string    // that toScheme redirects to

	refused bool // there is no route
	closed  bool // the routes deny every request
}

// step is a change of the path. sluice makes them in the order of the numbers.
type step int

const (
	stepStrip step = iota + 1
	stepAdd
	stepRewrite
)

func newEffects(r *reader, router *part) *effects {
	return &effects{reader: r, of: r.parts.http, kinds: middlewares, keys: make(tags.Keys), tags: append([]string(nil), router.tags()...)}
}

// ignore complains about a tag without effect.
func (e *effects) ignore(l label, want string) {
	e.reader.reading.Complain(tags.Complaint{Tag: l.tag, Want: want, Harmless: true})
}

// refuse complains about a tag without which a route would do something else.
func (e *effects) refuse(l label, want string) {
	e.refused = true
	e.reader.reading.Complain(tags.Complaint{Tag: l.tag, Want: want})
}

// close complains about a tag that restricts.
func (e *effects) close(l label, want string) {
	e.closed = true
	e.reader.reading.Complain(tags.Complaint{Tag: l.tag, Want: want + "; the route denies every request"})
}

// change records a change of the path, and reports whether sluice can make it: each once, in
// the order of the steps.
func (e *effects) change(l label, s step) bool {
	if s <= e.step || e.step != 0 && s == stepRewrite {
		e.refuse(l, "sluice strips a prefix, then adds one, or else rewrites the path: want the middlewares in this order, each kind once")
		return false
	}
	e.step = s
	return true
}

// routes returns the keys of the routes of an alternative with these conditions.
func (e *effects) routes(match tags.Keys, rule label) []tags.Keys {
	keys := match
	maps.Copy(keys, e.keys.Clone())
	if len(e.strip) > 0 && !e.stripFitting(keys, rule) {
		if !e.restricts() {
			return nil
		}
		e.closed = true
	}
	if e.secure {
		keys.Set("https", "when", "scheme")
	}
	if e.toScheme == nil {
		return []tags.Keys{keys}
	}
	// The middleware redirects requests with another scheme, and passes the rest.
	other := map[string]string{"http": "https", "https": "http"}[e.scheme]
	if e.secure && other == "http" {
		return []tags.Keys{keys}
	}
	redirected := keys.Clone()
	redirected.Set(other, "when", "scheme")
	redirected["redirect"] = e.toScheme
	if e.secure {
		return []tags.Keys{redirected}
	}
	keys.Set(e.scheme, "when", "scheme")
	return []tags.Keys{redirected, keys}
}

// stripFitting sets the prefix to strip: the first that fits every path of the conditions.
func (e *effects) stripFitting(keys tags.Keys, rule label) bool {
	if len(e.strip) == 1 {
		keys["strip_prefix"] = e.strip[0]
		return true
	}
	path, _ := keys["path"].(string)
	for _, prefix := range e.strip {
		switch {
		case keys["match"] != "regexp" && strings.HasPrefix(path, prefix):
			keys["strip_prefix"] = prefix
			return true
		case keys["match"] != "exact" && (keys["match"] == "regexp" || strings.HasPrefix(prefix, path)):
			// Some of the paths have this prefix.
			e.reader.reading.Complain(tags.Complaint{Tag: rule.tag,
				Want: "several prefixes to strip: want an alternative of the rule with PathPrefix for each"})
			return false
		}
	}
	return true
}

// restricts reports whether the route is to be for some clients only.
func (e *effects) restricts() bool { return e.closed || e.keys.Restricts() }
