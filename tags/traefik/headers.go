package traefik

import (
	"slices"
	"strconv"
	"strings"

	"sluice/route"
	"sluice/tags"
)

// fixedHeaders are options of the middleware headers that are one field of the response.
var fixedHeaders = map[string][2]string{
	"framedeny":          {"X-Frame-Options", "DENY"},
	"browserxssfilter":   {"X-XSS-Protection", "1; mode=block"},
	"contenttypenosniff": {"X-Content-Type-Options", "nosniff"},
}

// textHeaders are options of the middleware headers whose value becomes the value of a field.
var textHeaders = map[string]string{
	"contentsecuritypolicy":           "Content-Security-Policy",
	"contentsecuritypolicyreportonly": "Content-Security-Policy-Report-Only",
	"custombrowserxssvalue":           "X-XSS-Protection",
	"customframeoptionsvalue":         "X-Frame-Options",
	"permissionspolicy":               "Permissions-Policy",
	"referrerpolicy":                  "Referrer-Policy",
}

func (e *effects) headers(_ label, options *part) {
	e.cors(options)
	for _, l := range options.labels {
		if len(l.path) == 0 {
			continue
		}
		fixed, text := fixedHeaders[l.path[0]], textHeaders[l.path[0]]
		switch {
		case len(l.path) >= 2 && l.path[0] == "customrequestheaders":
			e.header("request_headers", strings.Join(l.written[1:], "."), l.value)
		case len(l.path) >= 2 && l.path[0] == "customresponseheaders":
			e.header("response_headers", strings.Join(l.written[1:], "."), l.value)
		case fixed[0] != "":
			if isTrue(l.value) {
				e.header("response_headers", fixed[0], fixed[1])
			}
		case text != "":
			e.header("response_headers", text, l.value)
		// The function cors reads these.
		case strings.HasPrefix(l.path[0], "accesscontrol") || l.path[0] == "addvaryheader":
		case l.path[0] == "allowedhosts":
			e.close(l, "sluice decides by the rule which hosts a router has: want Host in the rule")
		case strings.HasPrefix(l.path[0], "sts") || l.path[0] == "forcestsheader":
			e.ignore(l, "Strict-Transport-Security is a setting of the listener (hsts): ignored")
		default:
			e.ignore(l, "sluice has no such key: ignored")
		}
	}
}

// isTrue reports whether Traefik reads a value as true.
func isTrue(value string) bool {
	b, _ := strconv.ParseBool(value)
	return b
}

// isOff reports whether a value turns off what has options, such as tls: all but true and empty do.
func isOff(value string) bool { return value != "" && !strings.EqualFold(value, "true") }

// header sets a field, or removes it if value is empty.
func (e *effects) header(key, name, value string) {
	if value != "" {
		e.keys.Set(value, key, "set", name)
		return
	}
	known, _ := e.keys.Get(key, "remove").([]string)
	e.keys.Set(append(slices.Clone(known), name), key, "remove")
}

// corsLists are options of the middleware headers that are lists of CORS.
var corsLists = map[string]string{
	"accesscontrolallowheaders":    "allow_headers",
	"accesscontrolallowmethods":    "allow_methods",
	"accesscontrolalloworiginlist": "allow_origins",
	"accesscontrolexposeheaders":   "expose_headers",
}

// cors lets pages of other origins use the route, if the options name origins. Without maxage,
// clients forget the answer to a preflight after 5 s.
func (e *effects) cors(options *part) {
	keys := tags.Keys{"max_age": "5s"}
	var origins []string
	for _, l := range options.labels {
		if len(l.path) == 0 {
			continue
		}
		switch name := l.path[0]; {
		case name == "accesscontrolalloworiginlist":
			origins = append(origins, list(l.value)...)
		case corsLists[name] != "":
			keys[corsLists[name]] = list(l.value)
		case name == "accesscontrolalloworiginlistregex": // Traefik finds it anywhere in the origin
			for _, pattern := range list(l.value) {
				origins = append(origins, "~(?:.*(?:"+pattern+").*)")
			}
		case name == "accesscontrolallowcredentials":
			on, err := strconv.ParseBool(l.value)
			if keys["allow_credentials"] = l.value; err == nil {
				keys["allow_credentials"] = strconv.FormatBool(on)
			}
		case name == "accesscontrolmaxage":
			seconds, err := strconv.Atoi(l.value)
			// No client remembers it for longer than a day.
			if keys["max_age"] = l.value + "s"; err == nil {
				keys["max_age"] = strconv.Itoa(max(0, min(seconds, 86400))) + "s"
			}
		case strings.HasPrefix(name, "accesscontrol"):
			e.ignore(l, "sluice has no such key: ignored")
		}
	}
	if i := slices.IndexFunc(options.labels, func(l label) bool { return len(l.path) > 0 && strings.HasPrefix(l.path[0], "accesscontrol") }); len(origins) == 0 {
		if i >= 0 {
			e.ignore(options.labels[i], "no origin is allowed: ignored; want accesscontrolalloworiginlist")
		}
		return
	}
	keys["allow_origins"] = origins
	if slices.Contains(origins, "*") {
		delete(keys, "allow_credentials") // as browsers do: no user acts by a page of anybody
	}
	exposed, _ := keys["expose_headers"].([]string)
	if _, err := route.NewCORS(route.CORSOptions{AllowOrigins: origins, ExposeHeaders: exposed, AllowCredentials: keys["allow_credentials"] == "true"}); err != nil {
		e.ignore(options.labels[0], "CORS: "+err.Error()+": ignored")
		return
	}
	e.keys["cors"] = keys
}
