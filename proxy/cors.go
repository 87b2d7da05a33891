package proxy

import (
	"sluice/proxy/http1"
	"sluice/proxy/refusal"
	"sluice/route"
)

// originOf returns the origin of the page that has sent the request; "": there is none, or more
// than one.
func originOf(x *request) string {
	value, next := x.Field("origin", 0)
	if next < 0 {
		return ""
	}
	if _, again := x.Field("origin", next); again >= 0 {
		return ""
	}
	return string(value)
}

// isPreflight reports whether the request is a preflight (Fetch standard, section 3.3.2), which
// comes without what shows who the user is.
func isPreflight(x *request) bool {
	if x.head.Method != http1.MethodOptions {
		return false
	}
	_, origin := x.Field("origin", 0)
	_, method := x.Field("access-control-request-method", 0)
	return origin >= 0 && method >= 0
}

// answerPreflight returns the answer to a preflight. What it allows is in its fields: see withCORS.
func answerPreflight(x *request, c *route.CORS) *refusal.Refusal {
	if !c.Allows(originOf(x)) {
		return refusal.OriginDenied
	}
	method, _ := x.Field("access-control-request-method", 0)
	headers, _ := x.Field("access-control-request-headers", 0)
	r := refusal.Preflight
	for _, f := range c.PreflightFields(string(method), string(headers)) {
		r = r.With(f[0], f[1])
	}
	return r.With("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers")
}

// withCORS returns r with the fields of CORS: a page must be able to read why sluice has refused
// its request.
func withCORS(r *refusal.Refusal, x *chosenRoute) *refusal.Refusal {
	if x.actions.CORS == nil {
		return r
	}
	c := x.actions.CORS
	for _, f := range c.Fields(originOf(x.request)) {
		r = r.With(f[0], f[1])
	}
	if c.Varies() {
		r = r.With("Vary", "Origin")
	}
	return r
}

// appendCORS appends the field lines of CORS to those of a response, whose own ones were removed.
func appendCORS(out []byte, x *request, c *route.CORS) []byte {
	for _, f := range c.Fields(originOf(x)) {
		out = append(append(append(append(out, f[0]...), ": "...), f[1]...), "\r\n"...)
	}
	if c.Varies() && !variesBy(out, "origin") {
		out = append(out, "Vary: Origin\r\n"...)
	}
	return out
}

// variesBy reports whether a Vary line of a head has a name, in lower case.
func variesBy(head []byte, name string) bool {
	for line := range http1.Lines(head) {
		if !http1.HasName(line, "vary") {
			continue
		}
		if list := http1.LineValue(line); hasElement(list, name) || hasElement(list, "*") {
			return true
		}
	}
	return false
}
