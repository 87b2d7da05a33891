package traefik

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sluice/tags"
)

// label is a tag KEY=VALUE.
type label struct {
	tag     string
	path    []string // of the key after the prefix, in lower case
	written []string // the same in the case of the tag
	value   string
	unread  bool // the tag has a value that nobody reads: see tags.Check
}

// labels returns the labels of all tags with the prefix, sorted by key. Of several with one key the
// last counts, as in Traefik.
func labels(all []string, prefix string, reading *tags.Reading) []label {
	var list []label
	last := make(map[string]int)
	for _, tag := range all {
		key, value, found := strings.Cut(tag, "=")
		key = strings.TrimSpace(key)
		rest, ours := strings.CutPrefix(strings.ToLower(key), prefix+".")
		if !ours || len(rest) > len(key) {
			continue
		}
		reading.Tags = append(reading.Tags, tag)
		c := tags.Check(tag)
		if c != nil {
			reading.Complain(*c)
			if !found || tags.Check(key) != nil {
				continue
			}
			value = ""
		}
		if !found {
			reading.Complain(tags.Complaint{Tag: tag, Harmless: true, Want: "has no value: want KEY=VALUE"})
			continue
		}
		written := strings.Split(key[len(key)-len(rest):], ".")
		one := label{tag, strings.Split(rest, "."), written, strings.TrimSpace(value), c != nil}
		if n, twice := last[rest]; twice {
			if list[n].value != one.value {
				reading.Complain(tags.Complaint{Tag: list[n].tag, Harmless: true, Want: "ignored: a later tag of the instance has the same key"})
			}
			list[n] = one
			continue
		}
		last[rest] = len(list)
		list = append(list, one)
	}
	slices.SortStableFunc(list, func(a, b label) int { return cmp.Compare(a.tag, b.tag) })
	return list
}

// part is a router, a middleware or a service, with the tags that make it.
type part struct {
	labels []label // path: what follows the name
}

func (p *part) tags() []string {
	tags := make([]string, len(p.labels))
	for i, l := range p.labels {
		tags[i] = l.tag
	}
	return tags
}

// closeUnread closes the routes of e if a tag of the part has an unread value, and reports that.
func (p *part) closeUnread(e *effects) bool {
	i := slices.IndexFunc(p.labels, func(l label) bool { return l.unread })
	if i >= 0 {
		e.close(p.labels[i], "it may say who may use the route, and is not read")
	}
	return i >= 0
}

// get returns the value at a path below the part.
func (p *part) get(path ...string) (string, bool) {
	l := p.find(path...)
	if l == nil {
		return "", false
	}
	return l.value, true
}

func (p *part) find(path ...string) *label {
	for i := range p.labels {
		if slices.Equal(p.labels[i].path, path) {
			return &p.labels[i]
		}
	}
	return nil
}

// section has the parts for one protocol, by kind and name.
type section map[string]map[string]*part

func newSection() section {
	return section{"routers": make(map[string]*part), "middlewares": make(map[string]*part), "services": make(map[string]*part)}
}

// parts are what the tags of an instance define.
type parts struct {
	http, tcp section

	streams bool   // there are tags for TCP or UDP
	enable  *label // nil: there is no such tag
}

func partsOf(list []label, reading *tags.Reading) parts {
	p := parts{http: newSection(), tcp: newSection()}
	for _, l := range list {
		of := p.http
		switch protocol := l.path[0]; protocol {
		case "enable":
			p.enable = &l
			continue
		case "consulcatalog":
			if l.value != "false" {
				want := "sluice has no such setting: ignored"
				if len(l.path) > 1 && l.path[1] == "connect" {
					want = "only the file says which services are reached through the mesh (catalog.connect, services.NAME.consul.connect): ignored"
				}
				reading.Complain(tags.Complaint{Tag: l.tag, Harmless: true, Want: want})
			}
			continue
		case "udp":
			p.streams = true
			reading.Complain(tags.Complaint{Tag: l.tag, Want: "sluice does not forward UDP"})
			continue
		case "tcp":
			p.streams, of = true, p.tcp
			fallthrough
		case "http":
			if len(l.path) < 4 || of[l.path[1]] == nil || l.path[2] == "" {
				reading.Complain(tags.Complaint{Tag: l.tag, Want: fmt.Sprintf("unknown key: want %[1]s.routers, %[1]s.middlewares or %[1]s.services, each with .NAME.OPTION", protocol)})
				continue
			}
		default:
			reading.Complain(tags.Complaint{Tag: l.tag, Want: fmt.Sprintf("unknown key %q: want http, tcp or enable", protocol)})
			continue
		}
		named, name := of[l.path[1]], l.path[2]
		if named[name] == nil {
			named[name] = new(part)
		}
		named[name].labels = append(named[name].labels, label{l.tag, l.path[3:], l.written[3:], l.value, l.unread})
	}
	return p
}

// list splits a value at commas.
func list(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}
