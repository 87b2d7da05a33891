package config

import (
	"path"
	"slices"
	"strings"

	"sluice/tags/native"
)

// Catalog adds services from Consul that the file does not name, and routes that tags of
// instances ask for.
type Catalog struct {
	Select CatalogSelect `key:"select"`
	// Tags are the dialects in which tags may ask for routes; empty: none. With it, and
	// without DefaultRule, only services that ask for routes are added.
	Tags []string `key:"tags" oneof:"sluice|fabio|traefik"`
	// DefaultRule is the host of the route of an instance that asks for none, if no operator
	// names its service; empty: it has no route. {service} stands for the name of the service.
	DefaultRule string `key:"default_rule" format:"service_host"`
	// Listeners are the names of the listeners whose requests and connections routes of tags may
	// match; empty: all.
	Listeners []string       `key:"listeners"`
	Fabio     CatalogFabio   `key:"fabio"`
	Traefik   CatalogTraefik `key:"traefik"`
	// Claims are what services may claim by tags; empty: every exact host that no route of
	// an operator has.
	Claims   []Claim `key:"claims"`
	Insecure bool    `key:"insecure" default:"false"` // tags may ask for TLS without verification
	Connect  bool    `key:"connect" default:"false"`  // as ConsulService.Connect, of the services that are found
	// BasicAuth says that tags may have users with hashed passwords, which all who read the
	// registry can read.
	BasicAuth bool `key:"basic_auth" default:"false"`
	// ForwardAuth are the URLs of authentication servers that tags may name; empty: none.
	ForwardAuth []Location `key:"forward_auth" format:"http_url"`
}

// CatalogFabio is how fabio's tags are read.
type CatalogFabio struct {
	Prefix string `key:"prefix" default:"urlprefix-" format:"tag_prefix"`
	Share  bool   `key:"share" default:"true"` // services may have the same route
}

// CatalogTraefik is how Traefik's tags are read.
type CatalogTraefik struct {
	Prefix      string `key:"prefix" default:"traefik" format:"name"`
	Exposed     bool   `key:"exposed" default:"false"`            // also services without the tag PREFIX.enable=true
	DefaultRule Rule   `key:"default_rule" format:"traefik_rule"` // empty: traefik.DefaultRule
}

// Claim is what services may claim by tags.
type Claim struct {
	Service string `key:"service" format:"pattern" required:"yes"` // pattern for the name in Consul, as in path.Match
	// Hosts are hosts, wildcards such as *.example.com for all hosts below, or "*" for all
	// routes, also those without a host. {service} stands for the name of the service.
	Hosts    []string `key:"hosts" format:"claimed_host"`
	Paths    []string `key:"paths" format:"path"`                        // prefixes by segment; empty: all
	Priority int      `key:"priority" default:"0" min:"0" max:"1000000"` // highest of the routes
}

// Dialects of [Catalog.Tags], and who asks for the routes of [Catalog.DefaultRule].
const (
	DialectSluice  = "sluice"
	DialectFabio   = "fabio"
	DialectDefault = "default_rule"
)

// Reads reports whether tags of a dialect are read.
func (c *Catalog) Reads(dialect string) bool { return c != nil && slices.Contains(c.Tags, dialect) }

// TagPrefixes returns the beginnings of the tags that may ask for routes, in lower case.
func (c *Catalog) TagPrefixes() []string {
	var prefixes []string
	for _, dialect := range c.Tags {
		switch dialect {
		case DialectSluice:
			prefixes = append(prefixes, native.Prefix)
		case DialectFabio:
			prefixes = append(prefixes, strings.ToLower(c.Fabio.Prefix))
		case DialectTraefik:
			prefixes = append(prefixes, strings.ToLower(c.Traefik.Prefix)+".")
		}
	}
	return prefixes
}

// CatalogSelect selects services, and the instances of them. All conditions that are
// set must be met.
type CatalogSelect struct {
	Name string `key:"name" format:"pattern"` // pattern for the service name, as in path.Match
	Tag  string `key:"tag"`                   // an instance must have it
	Meta []Meta `key:"meta" format:"catalog_meta"`
}

// isPattern reports whether s is a pattern for path.Match.
func isPattern(s string) bool {
	_, err := path.Match(s, "")
	return err == nil
}

// Found returns an addition with the services of these names, each with c.Defaults and with the
// instances that match filter, an expression in Consul's language. It omits sluice
// itself, and services that c already has, by name or by their name in Consul, whose case does
// not count: Consul answers with the same instances. It adds the services that routes of c refer
// to and c does not have. skipped lists the names that sluice does not allow. c.Catalog must not
// be nil.
func (c *Config) Found(names []string, filter string) (f Addition, skipped []string) {
	f = Addition{Origin: "Consul's catalog", Services: make(map[string]Service)}
	taken := make(map[string]bool, len(c.Services)) // in lower case
	for name, s := range c.Services {
		taken[strings.ToLower(name)] = true
		if s.Consul != nil {
			taken[strings.ToLower(s.Consul.Service)] = true
		}
	}
	if c.Consul.Register != nil {
		taken[strings.ToLower(c.Consul.Register.Service)] = true
	}
	template := c.foundService(filter)
	add := func(name string) {
		s := template
		selection := *template.Consul
		s.Consul = &selection
		s.Consul.Service = name
		f.Services[name] = s
	}
	for name := range RoutedServices(c.Routes) {
		if _, ok := c.Services[name]; !ok && name != "" {
			taken[strings.ToLower(name)] = true
			add(name)
		}
	}
	for _, name := range names {
		switch {
		case taken[strings.ToLower(name)]:
		case !formats["name"].OK(name):
			skipped = append(skipped, name)
		default:
			add(name)
		}
	}
	slices.Sort(skipped)
	return f, skipped
}

// foundService returns a service with the defaults that selects instances by c.Catalog
// and by filter.
func (c *Config) foundService(filter string) Service {
	s := c.newService()
	s.Consul = new(ConsulService)
	schema.SetDefaults(s.Consul)
	if tag := c.Catalog.Select.Tag; tag != "" {
		s.Consul.Tags = []string{tag}
	}
	s.Consul.Filter, s.Consul.Connect = filter, c.Catalog.Connect
	s.check(newDecoder(""), "", "", &c.Consul)
	return s
}
