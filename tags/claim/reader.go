package claim

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/config"
	"sluice/discovery"
	"sluice/tags"
	"sluice/tags/fabio"
	"sluice/tags/native"
	"sluice/tags/traefik"
)

// Reader reads the tags of instances in the configured dialects. It does not change, and is
// safe for concurrent use. The zero value reads none.
type Reader struct {
	catalog  *config.Catalog // nil: no dialect
	text     string          // of all of it, for comparison
	rule     *traefik.Template
	prefixes []string
	own      bool // sluice's own tags
	dc       string
}

// NewReader returns the reader of a valid configuration.
func NewReader(c *config.Config) Reader {
	r := Reader{catalog: c.Catalog, dc: c.Consul.Datacenter}
	if r.catalog == nil {
		return r
	}
	r.prefixes = r.catalog.TagPrefixes()
	r.own = r.catalog.Reads(config.DialectSluice)
	r.text = fmt.Sprintf("%q %q %+v %+v %s", r.catalog.Tags, r.catalog.DefaultRule, r.catalog.Fabio, r.catalog.Traefik, r.dc)
	r.rule = r.catalog.Traefik.DefaultRule.Value
	return r
}

// Same reports whether r and o read the same from every instance.
func (r Reader) Same(o Reader) bool { return r.text == o.text }

// Reads reports whether an instance can ask for routes: in a dialect, or by the default rule.
func (r Reader) Reads() bool { return len(r.prefixes) > 0 || r.defaultRule() != "" }

func (r Reader) defaultRule() string {
	if r.catalog == nil {
		return ""
	}
	return r.catalog.DefaultRule
}

// Asks reports whether a tag is one of a dialect.
func (r Reader) Asks(tag string) bool {
	tag = strings.ToLower(strings.TrimSpace(tag))
	return slices.ContainsFunc(r.prefixes, func(prefix string) bool { return strings.HasPrefix(tag, prefix) })
}

// tags returns the tags of the dialects of an instance, and the entries of its meta that ask for
// routes.
func (r Reader) tags(i *discovery.Instance) (list []string) {
	for _, tag := range i.Tags {
		if r.Asks(tag) {
			list = append(list, tag)
		}
	}
	if r.own {
		for key, value := range i.Meta {
			if native.AsksForRoute(key) {
				list = append(list, key+"="+value)
			}
		}
	}
	return list
}

// mayAsk reports whether the tags of an entry count. An entry with a kind, such as a sidecar,
// has copies of its service's tags; but in the mesh sidecars are the instances.
func mayAsk(i *discovery.Instance) bool { return i.Kind == "" || i.Identity != "" }

// Profile returns what decides the requests of an instance, such as its tags of the dialects,
// as a text: equal for instances of a service that ask for the same; empty if they ask for nothing.
// Without such tags an instance asks for the route of the default rule, if there is one.
func (r Reader) Profile(i *discovery.Instance) string {
	if !mayAsk(i) || !r.Reads() {
		return ""
	}
	list := r.tags(i)
	if len(list) == 0 {
		return r.defaultRule()
	}
	for _, tag := range i.Tags {
		if r.rule.Reads(tag) {
			list = append(list, tag)
		}
	}
	if r.dc == "" && slices.ContainsFunc(list, func(tag string) bool { return strings.Contains(tag, "$") }) {
		list = append(list, i.Datacenter) // fabio's $DC
	}
	if slices.ContainsFunc(list, traefik.NamesPort) {
		list = append(list, strconv.Itoa(i.Port))
	}
	slices.Sort(list)
	var text []byte
	for _, tag := range list {
		text = append(strconv.AppendQuote(text, tag), ' ')
	}
	return string(text)
}

// Read returns what the tags of an instance ask for, in the order of precedence. service is
// its name in Consul. The result is never nil.
func (r Reader) Read(service string, i *discovery.Instance) []Reading {
	list := []Reading{}
	// In the mesh, another service may stand in for this one.
	if !mayAsk(i) || r.catalog == nil || i.Identity != "" && !strings.EqualFold(i.Service, service) {
		return list
	}
	if rule := r.defaultRule(); rule != "" && len(r.tags(i)) == 0 {
		return append(list, Reading{config.DialectDefault, byDefault(rule, service)})
	}
	in := tags.Instance{Service: service, Port: i.Port, Tags: i.Tags, Meta: i.Meta}
	if i.Kind != "" {
		in.Port = 0 // the tags are about the service's own
	}
	if r.own {
		list = append(list, Reading{config.DialectSluice, native.Read(in)})
	}
	if r.catalog.Reads(config.DialectFabio) {
		o := fabio.Options{Prefix: r.catalog.Fabio.Prefix, Datacenter: cmp.Or(r.dc, i.Datacenter)}
		list = append(list, Reading{config.DialectFabio, fabio.Read(in, o)})
	}
	if r.catalog.Reads(config.DialectTraefik) {
		o := traefik.Options{Prefix: r.catalog.Traefik.Prefix, Exposed: r.catalog.Traefik.Exposed, DefaultRule: r.rule}
		list = append(list, Reading{config.DialectTraefik, traefik.Read(in, o)})
	}
	return list
}

// DefaultTag is the beginning of what stands in place of a tag where the default rule asks for
// a route. The rest is the rule.
const DefaultTag = "catalog.default_rule="

// hostLabel matches a label of a host name. RFC 1123, section 2.1; RFC 1035, section 2.3.4.
var hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// byDefault returns what an instance of a service asks for by the default rule. The reading has
// no tags: the instance has none that would tell it from the others.
func byDefault(rule, service string) (reading tags.Reading) {
	tag := DefaultTag + rule
	if !hostLabel.MatchString(service) {
		reading.Complain(tags.Complaint{Tag: tag, Want: "the name of the service cannot be a part of a host name: want up to 63 letters, digits or '-', " +
			"with a letter or digit at both ends, or a route for it in a tag or in the file"})
		return reading
	}
	host := strings.ToLower(strings.ReplaceAll(rule, "{service}", service))
	reading.Routes = []tags.Route{{Tags: []string{tag}, Keys: tags.Keys{"host": host, "path": "/"}}}
	return reading
}
