package fabio

import (
	"cmp"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// Prefix is the prefix of fabio's tags if it is not configured.
const Prefix = "urlprefix-"

// Options configure how tags are read.
type Options struct {
	Prefix     string // of the tags; empty: Prefix
	Datacenter string // value of $DC in hosts and paths
}

// Read returns what the tags of i with the prefix ask for. Each of them makes at most one route.
func Read(i tags.Instance, o Options) tags.Reading {
	prefix := cmp.Or(o.Prefix, Prefix)
	var reading tags.Reading
	forHTTP := slices.ContainsFunc(i.Tags, func(tag string) bool {
		text, found := strings.CutPrefix(strings.TrimSpace(tag), prefix)
		return found && !slices.Contains(strings.Fields(text), "proto=tcp")
	})
	for _, tag := range i.Tags {
		text, found := strings.CutPrefix(strings.TrimSpace(tag), prefix)
		if !found {
			continue
		}
		reading.Tags = append(reading.Tags, tag)
		r := &reader{reading: &reading, tag: tag, datacenter: o.Datacenter, service: i.Service, forHTTP: forHTTP}
		if c := tags.Check(tag); c != nil {
			reading.Complain(*c)
			r.unread = true
		}
		r.read(tags.Blanks(text))
	}
	if len(reading.Tags) > 0 {
		for _, tag := range i.Tags {
			if key, _, found := strings.Cut(strings.TrimSpace(tag), "="); found && isOption(key) && tags.Control(tag) < 0 {
				reading.Complain(tags.Complaint{Tag: tag, Harmless: true,
					Want: "an option of fabio in a tag of its own has no effect: write it behind the route, as in " + prefix + "HOST/PATH " + key + "=…"})
			}
		}
	}
	reading.Tags = tags.SortedTags(reading.Tags...)
	reading.Limit()
	return reading
}

// reader reads one tag.
type reader struct {
	reading    *tags.Reading
	tag        string
	datacenter string
	service    string
	forHTTP    bool // the instance has routes for HTTP

	route   tags.Route
	scheme  string // condition by the port of the host; empty: none
	refused bool   // the tag makes no route
	unread  bool   // nor does it otherwise, unless it says who may use it: see tags.Check
}

// complain adds a complaint about the part of the tag that has text.
func (r *reader) complain(text, want string, harmless bool) {
	if r.unread { // which says enough
		return
	}
	column := 0
	if n := strings.Index(r.tag, text); n >= 0 && text != "" {
		column = n + 1
	}
	r.reading.Complain(tags.Complaint{Tag: r.tag, Column: column, Want: want, Harmless: harmless})
}

// refuse is complain for a tag that makes no route.
func (r *reader) refuse(text, want string) {
	r.complain(text, want, false)
	r.refused = true
}

// closeRoute is complain for an option that restricts: the route denies every request.
func (r *reader) closeRoute(text, want string) {
	r.complain(text, want+"; the route denies every request", false)
	r.route.Closed = true
}

func (r *reader) read(text string) {
	source, options, _ := strings.Cut(strings.TrimSpace(text), " ")
	fields := strings.Fields(options)
	r.route = tags.Route{Tags: []string{r.tag}, Keys: make(tags.Keys)}
	if slices.Contains(fields, "proto=tcp") {
		r.tcp(source, fields)
		return
	}
	r.source(source)
	if r.refused {
		return
	}
	r.options(r.values(fields))
	r.add()
}

// add adds the route, if the tag makes one.
func (r *reader) add() {
	if r.refused || r.unread {
		if !r.route.Keys.Restricts() && !r.route.Closed {
			return
		}
		r.route.Closed = true // it was to be for some clients only
		if r.unread {
			r.reading.Complain(tags.Complaint{Tag: r.tag, Want: tags.DeniesUnread})
		}
	}
	if r.scheme != "" {
		r.route.Keys.Set(r.scheme, "when", "scheme")
	}
	if r.route.Closed {
		r.route = r.route.Deny()
	}
	r.reading.Routes = append(r.reading.Routes, r.route)
}

// tcp reads :PORT, a route for the listener with this port, and explains what replaces others.
func (r *reader) tcp(source string, fields []string) {
	host, _, _ := strings.Cut(source, "/")
	port, portAlone := strings.CutPrefix(host, ":")
	switch {
	case portAlone:
		r.route.Protocol, r.route.Port = tags.ProtocolTCP, port
	case strings.Contains(host, ":"):
		r.refuse(source, "a tag opens no address: want a listener for TCP in the file, { address: '"+host+"', protocol: tcp, service: "+r.service+" }")
		return
	default:
		r.refuse(source, "a tag passes no TLS through: want a listener for TCP in the file, with sni: [{ host: "+host+", service: "+r.service+" }]")
		return
	}
	values := r.values(fields)
	r.access(values)
	if on, _ := strconv.ParseBool(values["pxyproto"]); on && r.forHTTP {
		r.refuse("pxyproto=", "the instance has routes for HTTP too, whose requests share connections: want a service of its own in Consul for TCP")
	} else if on && !r.unread {
		r.reading.Set(tags.Keys{"proxy_protocol": "v1"}, r.tag)
	}
	r.add()
}

// source reads HOST/PATH.
func (r *reader) source(source string) {
	switch {
	case source == "":
		r.refuse("", "has no route: want HOST/PATH or /PATH after the prefix")
		return
	case source[0] == ':':
		r.refuse(source, "a port alone is a route for TCP: want the option proto=tcp")
		return
	}
	host, path, _ := strings.Cut(source, "/")
	host, path = strings.ToLower(r.expand(host)), "/"+r.expand(path)
	r.host(host)
	if r.refused {
		return
	}
	if strings.HasSuffix(path, "*") {
		r.refuse(source, "the path is a prefix, and '*' stands for itself: want "+strings.TrimRight(path, "*"))
		return
	}
	if r.route.Keys["path"] = path; path != "/" {
		r.route.Keys["match"] = "string_prefix"
	}
}

// expand replaces $DC. As in fabio, all other names vanish.
func (r *reader) expand(s string) string {
	return os.Expand(s, func(name string) string {
		if name == "DC" {
			return r.datacenter
		}
		r.complain("$", "only $DC is known: $"+name+" is removed", true)
		return ""
	})
}

// host sets the condition for a host, which may have a port and stars.
func (r *reader) host(host string) {
	switch name, port := splitPort(host); port {
	case "":
	case "80":
		host, r.scheme = name, "http"
	case "443":
		host, r.scheme = name, "https"
	default:
		r.complain(":"+port, "the port of a host is ignored: the route counts for each listener that may use it", true)
		host = name
	}
	switch suffix, wildcard := strings.CutPrefix(host, "*."); {
	case host == "" || host == "*":
	case strings.ContainsAny(host, "[]{}?\\") && net.ParseIP(strings.Trim(host, "[]")) == nil:
		r.refuse("", "the host "+host+" is a pattern that sluice does not know: want '*' for any characters")
	case wildcard && !strings.Contains(suffix, "*"):
		r.route.Keys["host"] = host
	case strings.Contains(host, "*"):
		parts := strings.Split(host, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		r.route.Keys["host_regexp"] = "^" + strings.Join(parts, ".*") + "$"
	default:
		r.route.Keys["host"] = host
	}
}

// splitPort splits HOST:PORT. port is empty if host has none; an IPv6 address has one only
// after brackets.
func splitPort(host string) (name, port string) {
	n := strings.LastIndexByte(host, ':')
	if n < 0 || strings.Contains(host[:n], ":") && !strings.HasSuffix(host[:n], "]") {
		return host, ""
	}
	return host[:n], host[n+1:]
}
