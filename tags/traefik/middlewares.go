package traefik

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/route"
	"sluice/route/compression"
	"sluice/tags"
)

const (
	maxChain = 8  // the depth of chains of middlewares
	maxUses  = 64 // the middlewares of a router, each time that a chain names one: chains of chains could name billions
)

// middlewares translate a middleware of the kind, each with its options below the kind.
var middlewares = map[string]func(e *effects, kind label, options *part){
	"addprefix":        needs((*effects).addPrefix, "prefix"),
	"buffering":        (*effects).buffering,
	"compress":         (*effects).compress,
	"forwardauth":      (*effects).forwardAuth,
	"headers":          (*effects).headers,
	"ipallowlist":      (*effects).allowList,
	"ipwhitelist":      (*effects).allowList,
	"ratelimit":        (*effects).rateLimit,
	"redirectregex":    needs((*effects).redirectRegexp, "regex", "replacement", "permanent"),
	"redirectscheme":   needs((*effects).redirectScheme, "scheme", "permanent", "port"),
	"replacepath":      needs((*effects).replacePath, "path"),
	"replacepathregex": needs((*effects).replacePathRegexp, "regex", "replacement"),
	"retry":            needs((*effects).retry, "attempts"),
	"stripprefix":      needs((*effects).stripPrefix, "prefixes", "forceslash"),
	"stripprefixregex": needs((*effects).stripPrefixRegexp, "regex"),

	"circuitbreaker": ignored("sluice ejects failing peers, always: ignored"),
	"contenttype":    ignored("sluice never guesses a content type: ignored"),
	"errors":         ignored("sluice shows pages from files, and asks no service for them: ignored; want error_pages of a route in the file"),
	"grpcweb":        ignored("sluice does not translate gRPC-Web: ignored"),
	"inflightreq":    ignored("requests at a time are limited per service: ignored; want limits.requests of the service in the file"),

	"basicauth": closed("who can read the tags of a service can read its passwords, so sluice takes none from tags: want a route in the file with basic_auth"),
	// The peers believe fields that sluice does not set, so a client could forge them.
	"passtlsclientcert": closed("the peers believe X-Forwarded-Tls-Client-Cert, which sluice does not set, and clients could: want a listener in the file with tls.client_ca, which tells peers X-Forwarded-Client-Cert"),
}

func ignored(want string) func(*effects, label, *part) {
	return func(e *effects, l label, _ *part) { e.ignore(l, want) }
}

func closed(want string) func(*effects, label, *part) {
	return func(e *effects, l label, _ *part) { e.close(l, want) }
}

// needs returns the translation by apply of a middleware with known keys. apply gets the first, without
// which the middleware is refused.
func needs(apply func(e *effects, l label, options *part), keys ...string) func(*effects, label, *part) {
	return func(e *effects, kind label, options *part) {
		e.only(options, keys...)
		if l, ok := e.required(kind, options, keys[0]); ok {
			apply(e, l, options)
		}
	}
}

// middleware adds the effects of the middleware with a name. from has the name.
func (e *effects) middleware(from label, name string, depth int) {
	if e.uses++; e.uses > maxUses {
		if e.uses == maxUses+1 {
			e.close(from, fmt.Sprintf("the router uses too many middlewares: want at most %d", maxUses))
		}
		return
	}
	name, at, elsewhere := strings.Cut(strings.ToLower(name), "@")
	m := e.of["middlewares"][name]
	if elsewhere && at != "consulcatalog" || m == nil {
		e.close(from, "no middleware "+strconv.Quote(name)+" in the tags of the instance, which are the only ones that it can use")
		return
	}
	if depth > maxChain {
		e.close(from, "the chain of middlewares is too deep, or uses itself")
		return
	}
	e.tags = append(e.tags, m.tags()...)
	kind := m.labels[0].path[0]
	options := new(part)
	for _, l := range m.labels {
		if l.path[0] != kind {
			e.close(l, "the middleware has two kinds, "+kind+" and "+l.path[0])
			return
		}
		options.labels = append(options.labels, label{l.tag, l.path[1:], l.written[1:], l.value})
	}
	if kind == "chain" {
		e.chain(m.labels[0], options, depth)
		return
	}
	apply, known := e.kinds[kind]
	if !known {
		e.close(m.labels[0], "sluice has no middleware of the kind "+kind+": want one of chain, "+strings.Join(slices.Sorted(maps.Keys(e.kinds)), ", "))
		return
	}
	apply(e, m.labels[0], options)
}

// only ignores the options that are not among known.
func (e *effects) only(options *part, known ...string) {
	for _, l := range options.labels {
		if len(l.path) > 0 && !slices.Contains(known, l.path[0]) {
			e.ignore(l, "sluice has no such key: ignored")
		}
	}
}

// required returns the value of an option, or complains that it is missing.
func (e *effects) required(kind label, options *part, name string) (label, bool) {
	l := options.find(name)
	if l == nil || l.value == "" {
		e.refuse(kind, "the middleware needs the key "+name)
		return label{}, false
	}
	return *l, true
}

// chain adds the effects of several middlewares.
func (e *effects) chain(kind label, options *part, depth int) {
	l, ok := e.required(kind, options, "middlewares")
	if !ok {
		return
	}
	for _, name := range list(l.value) {
		e.middleware(l, name, depth+1)
	}
}

func (e *effects) redirectScheme(l label, options *part) {
	scheme := strings.ToLower(l.value)
	if scheme != "http" && scheme != "https" {
		e.refuse(l, "want http or https")
		return
	}
	to := scheme + "://$host"
	if port, ok := options.get("port"); ok && port != "" && port != map[string]string{"http": "80", "https": "443"}[scheme] {
		to += ":" + port
	}
	e.scheme, e.toScheme = scheme, redirectKeys(options)
	e.toScheme["to"] = to + "$path"
}

// redirectKeys returns the keys of a redirect with Traefik's statuses, which are others for GET.
func redirectKeys(options *part) tags.Keys {
	if permanent, _ := options.get("permanent"); permanent == "true" {
		return tags.Keys{"code": "308", "get_code": "301"}
	}
	return tags.Keys{"code": "307", "get_code": "302"}
}

// redirectRegexp makes a redirect of what the pattern matches first.
func (e *effects) redirectRegexp(l label, options *part) {
	re, err := route.CompileRegexp(l.value)
	if err != nil {
		e.refuse(l, "want a regular expression in Go's syntax: "+err.Error())
		return
	}
	if e.step != 0 {
		e.refuse(l, "sluice redirects by the URL that the client sent: want the middleware before any that changes the path")
		return
	}
	if e.keys["redirect"] != nil {
		e.refuse(l, "two redirects by pattern: want one, or a router of its own for the other one")
		return
	}
	replacement, _ := options.get("replacement")
	redirect := redirectKeys(options)
	maps.Copy(redirect, within(re, replacement))
	e.keys["redirect"] = redirect
}

// within returns the keys that replace the first match of re. Traefik replaces the match within
// the URL or path, sluice all of it: so the pattern gets groups for the rest.
func within(re *regexp.Regexp, replacement string) tags.Keys {
	const before = 2 // the groups before the groups of re; the second is the match
	return tags.Keys{
		"regexp": "^(.*?)(" + re.String() + ")(.*)$",
		"to":     fmt.Sprintf("${1}%s${%d}", template(replacement, re, before), before+re.NumSubexp()+1),
	}
}

// template returns a replacement in the form of [regexp.Regexp.Expand] as a template of sluice,
// for an expression with so many groups before the groups of re; the last of them is all of re. A name that re does not
// have is empty, as in Go.
func template(replacement string, re *regexp.Regexp, before int) string {
	var b strings.Builder
	for replacement != "" {
		text, after, found := strings.Cut(replacement, "$")
		b.WriteString(text)
		if !found {
			break
		}
		name := word.FindString(after)
		rest := after[len(name):]
		if inner, closed, ok := strings.Cut(strings.TrimPrefix(after, "{"), "}"); strings.HasPrefix(after, "{") && ok && word.FindString(inner) == inner {
			name, rest = inner, closed
		}
		switch group, err := strconv.Atoi(name); {
		case strings.HasPrefix(after, "$"):
			b.WriteString("$$")
			rest = after[1:]
		case name == "":
			b.WriteString("$$")
		case err == nil && group <= re.NumSubexp():
			fmt.Fprintf(&b, "${%d}", group+before)
		case err != nil && re.SubexpIndex(name) > 0:
			fmt.Fprintf(&b, "${%d}", re.SubexpIndex(name)+before)
		}
		replacement = rest
	}
	return b.String()
}

// word is what may follow "$" in a replacement.
var word = regexp.MustCompile(`^[\p{L}\p{Nd}_]+`)

func (e *effects) stripPrefix(l label, _ *part) {
	if !e.change(l, stepStrip) {
		return
	}
	for _, prefix := range list(l.value) {
		if prefix[0] != '/' {
			prefix = "/" + prefix
		}
		e.strip = append(e.strip, prefix)
	}
}

func (e *effects) stripPrefixRegexp(l label, _ *part) {
	if !e.change(l, stepRewrite) {
		return
	}
	var patterns []string
	for _, pattern := range list(l.value) {
		if hasPlaceholder(pattern) {
			e.refuse(l, "placeholders are of version 2: want "+version3(pattern))
			return
		}
		patterns = append(patterns, strings.TrimPrefix(pattern, "^"))
	}
	re, err := route.CompileRegexp("^(?:" + strings.Join(patterns, "|") + ")/?(.*)$")
	if err != nil {
		e.refuse(l, "want regular expressions in Go's syntax: "+err.Error())
		return
	}
	e.keys["rewrite"] = tags.Keys{"regexp": re.String(), "to": fmt.Sprintf("/${%d}", re.NumSubexp())}
}

func (e *effects) addPrefix(l label, _ *part) {
	if !e.change(l, stepAdd) {
		return
	}
	if l.value[0] != '/' {
		e.refuse(l, "want a path that begins with /")
		return
	}
	e.keys["add_prefix"] = l.value
}

func (e *effects) replacePath(l label, _ *part) {
	if e.change(l, stepRewrite) {
		e.keys["rewrite"] = tags.Keys{"regexp": "^.*$", "to": strings.ReplaceAll(l.value, "$", "$$")}
	}
}

func (e *effects) replacePathRegexp(l label, options *part) {
	if !e.change(l, stepRewrite) {
		return
	}
	re, err := route.CompileRegexp(l.value)
	if err != nil {
		e.refuse(l, "want a regular expression in Go's syntax: "+err.Error())
		return
	}
	// Traefik changes nothing without a replacement.
	if replacement, _ := options.get("replacement"); replacement != "" {
		e.keys["rewrite"] = within(re, replacement)
	}
}

// allowList restricts the clients. Addresses are the ones that the listener trusts.
func (e *effects) allowList(kind label, options *part) {
	var networks []string
	for _, l := range options.labels {
		if len(l.path) == 0 || l.path[0] != "sourcerange" {
			e.ignore(l, "sluice decides by the client that it trusts (client.trusted_proxies): ignored")
			continue
		}
		for _, item := range list(l.value) {
			network, ok := tags.Network(item)
			if !ok {
				e.close(l, "want addresses and networks, with commas between them")
				return
			}
			networks = append(networks, network)
		}
	}
	switch {
	case len(networks) == 0:
		e.close(kind, "the middleware needs the key sourcerange")
	case e.keys["allow"] != nil:
		e.close(kind, "two lists of addresses: want one")
	default:
		e.keys["allow"] = networks
	}
}

func (e *effects) forwardAuth(kind label, options *part) {
	auth := make(tags.Keys)
	for _, l := range options.labels {
		switch strings.Join(l.path, ".") {
		case "address":
			auth["url"] = l.value
		case "authresponseheaders":
			auth["response_headers"] = list(l.value)
		case "trustforwardheader":
			e.ignore(l, "sluice trusts client.trusted_proxies: ignored")
		default:
			e.close(l, "sluice has no such key")
		}
	}
	if auth["url"] == nil {
		e.close(kind, "the middleware needs the key address")
		return
	}
	e.keys["forward_auth"] = auth
}

func (e *effects) rateLimit(kind label, options *part) {
	limit := tags.Keys{"per": "1s", "burst": "1", "key": "client_address"}
	for _, l := range options.labels {
		switch path := strings.Join(l.path, "."); path {
		case "average":
			limit["rate"] = l.value
		case "period":
			limit["per"] = duration(l.value)
		case "burst":
			limit["burst"] = l.value
		case "sourcecriterion.requestheadername":
			limit["key"] = "header " + l.value
		case "sourcecriterion.requesthost":
			limit["key"] = "header Host"
		default:
			e.ignore(l, "sluice has no such key: ignored")
		}
	}
	switch rate := limit["rate"]; {
	case rate == nil || rate == "0": // no limit, as in Traefik
		e.ignore(kind, "no limit without average: ignored")
	default:
		e.keys["rate_limit"] = limit
	}
}

func (e *effects) retry(l label, _ *part) {
	attempts, err := strconv.Atoi(l.value)
	if err != nil || attempts < 1 {
		e.ignore(l, "want a number of at least 1: ignored")
		return
	}
	const most = 5
	if attempts > most {
		e.ignore(l, "at most 5 attempts: 5 count")
	}
	e.keys.Set(strconv.Itoa(min(attempts, most)), "retry", "attempts")
}

// compress compresses with sluice's types, unless the middleware has a list of its own.
func (e *effects) compress(_ label, options *part) {
	if value, _ := options.get(); value == "false" {
		return
	}
	keys := tags.Keys{"min_length": "1024B"}
	for _, l := range options.labels {
		switch strings.Join(l.path, ".") {
		case "":
		case "minresponsebodybytes":
			keys["min_length"] = l.value + "B"
		case "includedcontenttypes":
			keys["types"] = e.listOf(l, func(s string) bool { _, ok := compression.ParseType(s); return ok })
		case "encodings":
			keys["encodings"] = e.listOf(l, func(s string) bool { _, ok := compression.ParseEncoding(s); return ok })
		case "excludedcontenttypes":
			e.ignore(l, "sluice compresses the types of a list, which has neither text/event-stream nor pictures: ignored; want includedcontenttypes")
		default:
			e.ignore(l, "sluice has no such key: ignored")
		}
	}
	e.keys["compress"] = keys
}

// listOf returns the elements of a list that sluice knows.
func (e *effects) listOf(l label, known func(string) bool) []string {
	all := list(l.value)
	kept := slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !known(s) })
	if len(kept) < len(all) {
		e.ignore(l, "sluice does not know all of these: the others count")
	}
	return kept
}

func (e *effects) buffering(_ label, options *part) {
	e.only(options, "maxrequestbodybytes")
	if value, ok := options.get("maxrequestbodybytes"); ok {
		e.keys["body_limit"] = value + "B"
	}
}

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
			if l.value == "true" {
				e.header("response_headers", fixed[0], fixed[1])
			}
		case text != "":
			e.header("response_headers", text, l.value)
		case strings.HasPrefix(l.path[0], "accesscontrol") || l.path[0] == "addvaryheader": // see cors
		case l.path[0] == "allowedhosts":
			e.close(l, "sluice decides by the rule which hosts a router has: want Host in the rule")
		case strings.HasPrefix(l.path[0], "sts") || l.path[0] == "forcestsheader":
			e.ignore(l, "Strict-Transport-Security is a setting of the listener (hsts): ignored")
		default:
			e.ignore(l, "sluice has no such key: ignored")
		}
	}
}

// corsLists are options of the middleware headers that are lists of CORS.
var corsLists = map[string]string{
	"accesscontrolallowheaders":    "allow_headers",
	"accesscontrolallowmethods":    "allow_methods",
	"accesscontrolalloworiginlist": "allow_origins",
	"accesscontrolexposeheaders":   "expose_headers",
}

// cors lets pages of other origins use the route, if the options say of which. Without maxage, clients forget the answer to
// a preflight after 5 s.
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
			keys["allow_credentials"] = l.value
		case name == "accesscontrolmaxage":
			keys["max_age"] = l.value + "s"
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
		delete(keys, "allow_credentials") // browsers do not let pages of anybody act for a user either
	}
	exposed, _ := keys["expose_headers"].([]string)
	if _, err := route.NewCORS(route.CORSOptions{AllowOrigins: origins, ExposeHeaders: exposed, AllowCredentials: keys["allow_credentials"] == "true"}); err != nil {
		e.ignore(options.labels[0], "CORS: "+err.Error()+": ignored")
		return
	}
	e.keys["cors"] = keys
}

// header sets a field, or removes it if value is empty.
func (e *effects) header(key, name, value string) {
	if value != "" {
		e.keys.Set(value, key, "set", name)
		return
	}
	known, _ := e.keys.Get(key, "remove").([]string)
	e.keys.Set(append(slices.Clone(known), name), key, "remove")
}
