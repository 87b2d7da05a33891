package traefik

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"sluice/route/compression"
	"sluice/tags"
)

const (
	maxChain = 8  // the depth of chains of middlewares
	maxUses  = 64 // the middlewares of a router: chains of chains could name billions
)

// middlewares translate a middleware of the kind, each with its options below the kind.
var middlewares = map[string]func(e *effects, kind label, options *part){
	"addprefix":        needs((*effects).addPrefix, "prefix"),
	"basicauth":        (*effects).basicAuth,
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

	// The peers believe fields that sluice does not set, so a client could forge them.
	"passtlsclientcert": closed("the peers believe X-Forwarded-Tls-Client-Cert, which sluice does not set, and clients could: want a listener in the file with tls.client_ca, which tells peers X-Forwarded-Client-Cert"),
}

func ignored(want string) func(*effects, label, *part) {
	return func(e *effects, l label, _ *part) { e.ignore(l, want) }
}

func closed(want string) func(*effects, label, *part) {
	return func(e *effects, l label, _ *part) { e.close(l, want) }
}

// needs returns the translation by apply of a middleware with known keys. apply gets the first key,
// which is required.
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
	if named, provider, _ := strings.Cut(name, "@"); strings.EqualFold(provider, "file") {
		known, _ := e.keys["use"].([]string)
		e.keys["use"] = append(known, named)
		return
	}
	name, at, elsewhere := strings.Cut(strings.ToLower(name), "@")
	m := e.of["middlewares"][name]
	if elsewhere && at != "consulcatalog" || m == nil {
		e.close(from, "no middleware "+strconv.Quote(name)+" in the tags of the instance: want one of these, or "+name+"@file for named actions of the file")
		return
	}
	if depth > maxChain {
		e.close(from, "the chain of middlewares is too deep, or uses itself")
		return
	}
	e.tags = append(e.tags, m.tags()...)
	if m.closeUnread(e) {
		return
	}
	kind := m.labels[0].path[0]
	options := new(part)
	for _, l := range m.labels {
		if l.path[0] != kind {
			e.close(l, "the middleware has two kinds, "+kind+" and "+l.path[0])
			return
		}
		options.labels = append(options.labels, label{l.tag, l.path[1:], l.written[1:], l.value, false})
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

func (e *effects) basicAuth(kind label, options *part) {
	auth := tags.Keys{"realm": "traefik"}
	for _, l := range options.labels {
		switch strings.Join(l.path, ".") {
		case "users":
			auth["users"] = list(l.value)
		case "realm":
			auth["realm"] = cmp.Or(l.value, "traefik")
		case "removeheader":
			if isTrue(l.value) {
				e.header("request_headers", "Authorization", "")
			}
		default: // usersfile is a file of Traefik's machine; peers believe headerfield
			e.close(l, "sluice has no such key")
		}
	}
	switch known := e.keys["basic_auth"]; {
	case auth["users"] == nil:
		e.close(kind, "the middleware needs the key users")
	case known != nil && !reflect.DeepEqual(known, auth):
		e.close(kind, "two middlewares with passwords: want one")
	default:
		e.keys["basic_auth"] = auth
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
	switch known := e.keys["forward_auth"]; {
	case auth["url"] == nil:
		e.close(kind, "the middleware needs the key address")
	case known != nil && !reflect.DeepEqual(known, auth):
		e.close(kind, "two authentication servers: want one")
	default:
		e.keys["forward_auth"] = auth
	}
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
	if rate := limit["rate"]; rate == nil || rate == "0" { // no limit, as in Traefik
		e.ignore(kind, "no limit without average: ignored")
		return
	}
	if known := e.keys["rate_limit"]; known != nil && !reflect.DeepEqual(known, limit) {
		e.ignore(kind, "two rate limits: this one counts, and not the one before")
	}
	e.keys["rate_limit"] = limit
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
	if value, _ := options.get(); isOff(value) {
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
