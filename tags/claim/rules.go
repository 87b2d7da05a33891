package claim

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"sluice/config"
	"sluice/route"
	"sluice/tags"
)

// AnyHost is an entry of [config.Claim.Hosts] for all hosts, also for routes without one.
const AnyHost = "*"

// Rules say what services may claim.
type Rules struct {
	// Claims, if there are any, are all that services may claim.
	Claims []config.Claim
	// Reserved are the hosts of routes of operators, in lower case. A service may have
	// a route for one of them only with a claim that names it.
	Reserved map[string]bool
	// ReservedNames are the server names of listeners of operators, in lower case. They are
	// reserved for routes of connections.
	ReservedNames map[string]bool
	// Taken are the origins of the routes of operators, by Route.Key.
	Taken map[string]string
	// Insecure says that tags may ask for TLS without verification.
	Insecure bool
	// Upstream checks the setting upstream of tags; nil: an instance is asked without it too, as in
	// the mesh, which has its own TLS.
	Upstream func(tags.Keys) error
	// Config has the named actions and the defaults of the file.
	Config *config.Config
	// BasicAuth says that tags may have users with passwords.
	BasicAuth bool
	// ForwardAuth are the URLs of authentication servers that tags may name.
	ForwardAuth []config.Location
	// Replicas says that it is known who is a replica, as rate limits of all replicas need.
	Replicas bool
	// Share says that services may share a route that fabio's tags ask for. Without claims
	// nobody has said that one may take a part of another's requests.
	Share bool
	// Listeners are the listeners whose requests the routes may match.
	Listeners []string
	// AllListeners says that Listeners has every listener with routes.
	AllListeners bool
	// StreamListeners are the listeners whose connections the routes may match.
	StreamListeners []string
	// StreamPorts are those of StreamListeners without TLS, by port.
	StreamPorts map[string][]string
	// EndsTLS are the listeners that end the TLS of their clients.
	EndsTLS map[string]bool
	// Defined are the services of operators, whose settings tags do not change.
	Defined map[string]bool
	// Requests are the services of operators to which no connections can go, with the setting
	// that needs requests.
	Requests map[string]string
	// HasGroups are the services for which an operator has defined groups.
	HasGroups map[string]bool
	// Named are the services that an operator names, in services or in a route.
	// The default rule is not for them: who names a service decides who reaches it.
	Named map[string]bool
}

// NewRules returns the rules of a configuration as operators wrote it, without what was found
// in the registry.
func NewRules(c *config.Config) Rules {
	rules := Rules{
		Reserved: make(map[string]bool), ReservedNames: make(map[string]bool),
		Defined: make(map[string]bool), HasGroups: make(map[string]bool), Requests: make(map[string]string),
		EndsTLS: make(map[string]bool), Named: make(map[string]bool), Replicas: c.Consul.Register != nil,
		Config: c,
	}
	for name, service := range c.Services {
		rules.Defined[name], rules.Named[name] = true, true
		if why := service.NoStreams(); why != "" {
			rules.Requests[name] = why
		}
		rules.HasGroups[name] = len(service.Groups) > 0
	}
	rules.Taken = make(map[string]string, len(c.Routes))
	for _, r := range c.Routes {
		rules.Taken[r.Key()] = r.Origin
		if r.Host != "" {
			rules.Reserved[normalHost(r.Host)] = true
		}
	}
	maps.Copy(rules.Named, config.RoutedServices(c.Routes))
	for _, l := range c.Listeners {
		for _, key := range l.StreamKeys() {
			rules.Taken[key] = "the listener " + l.Name
		}
		if l.TLS != nil {
			rules.EndsTLS[l.Name] = true
		}
		for _, entry := range l.SNI {
			rules.ReservedNames[normalHost(entry.Host)] = true
		}
	}
	if c.Catalog != nil {
		rules.Claims, rules.Insecure = c.Catalog.Claims, c.Catalog.Insecure
		rules.BasicAuth, rules.ForwardAuth = c.Catalog.BasicAuth, c.Catalog.ForwardAuth
		rules.Share = c.Catalog.Fabio.Share && len(rules.Claims) > 0
		if !c.Catalog.Connect {
			rules.Upstream = c.CheckTagUpstream
		}
		rules.Listeners, rules.AllListeners = c.TagListeners(config.ProtocolHTTP)
		rules.StreamListeners, _ = c.TagListeners(config.ProtocolTCP)
		rules.StreamPorts = make(map[string][]string)
		for _, l := range c.Listeners {
			if port := l.Address.Value.Port; port != "" && !rules.EndsTLS[l.Name] && slices.Contains(rules.StreamListeners, l.Name) {
				rules.StreamPorts[port] = append(rules.StreamPorts[port], l.Name)
			}
		}
	}
	return rules
}

// normalHost returns the only spelling of a host: in lower case, without a final dot, an IPv6
// address in the form of RFC 5952.
func normalHost(host string) string {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if ip, err := netip.ParseAddr(strings.TrimSuffix(inner, "]")); err == nil {
			return "[" + ip.String() + "]"
		}
	}
	return host
}

// allow returns the highest priority that service may use for r, or why it may not have it.
func (u *Rules) allow(service string, r config.Route) (priority int, refused string) {
	host := normalHost(r.Host)
	reserved := u.Reserved[host] || r.Protocol != "" && u.ReservedNames[host]
	wide := host == "" || strings.HasPrefix(host, "*.")
	found, named := false, false
	for _, c := range u.Claims {
		if ok, err := path.Match(c.Service, service); !ok || err != nil {
			continue
		}
		byName, covered := covers(c, service, host)
		if !covered || !coversPath(c.Paths, r) {
			continue
		}
		if !found || c.Priority > priority {
			priority = c.Priority
		}
		found, named = true, named || byName
	}
	switch {
	case reserved && !named:
		return 0, fmt.Sprintf("the host %s belongs to the operator's own routes: want an entry of catalog.claims that names it", host)
	case found:
		return priority, ""
	case r.Dialect == config.DialectDefault: // the rule is the operator's claim for the service
		return 0, ""
	case len(u.Claims) > 0:
		return 0, "the service has no claim to this: want an entry of catalog.claims for the host and the path"
	case r.HostRegexp != "" || wide:
		return 0, "a route without an exact host could take requests of other services: want an entry of catalog.claims, such as { service: " +
			service + ", hosts: ['" + cmp.Or(host, AnyHost) + "'] }"
	}
	return 0, ""
}

// covers reports whether a claim covers a host, and whether it names it or a wildcard above it.
// host is "" for a route without one, and for one with a pattern.
func covers(c config.Claim, service, host string) (byName, covered bool) {
	for _, claimed := range c.Hosts {
		claimed = normalHost(strings.ReplaceAll(claimed, "{service}", service))
		switch suffix, wildcard := strings.CutPrefix(claimed, "*"); {
		case claimed == AnyHost:
			covered = true
		case host == "":
		case claimed == host, wildcard && strings.HasSuffix(host, suffix):
			return true, true
		}
	}
	return false, covered
}

// coversPath reports whether all paths of r are below one of paths, or paths is empty.
func coversPath(paths []string, r config.Route) bool {
	if len(paths) == 0 {
		return true
	}
	if r.Match == string(route.PathRegexp) {
		return false
	}
	for _, claimed := range paths {
		claimed = strings.TrimSuffix(claimed, "/")
		below := strings.HasPrefix(r.Path, claimed+"/")
		if below || claimed == "" || r.Path == claimed && r.Match != string(route.PathStringPrefix) {
			return true
		}
	}
	return false
}

// auth returns why r may not learn as the keys of its tags say who a client is; empty: it may, or
// they say nothing. Named actions may, whatever the tags may.
func (u *Rules) auth(keys tags.Keys, r config.Route) (refused string) {
	switch {
	case keys["basic_auth"] != nil && !u.BasicAuth:
		return "who can read the tags of a service can read its users and their hashed passwords: want catalog.basic_auth: true in the file, or named actions with basic_auth; the route denies every request"
	// The server need not be one of the service, so a tag could make sluice send requests to
	// any address that sluice reaches.
	case keys["forward_auth"] != nil && r.ForwardAuth != nil && !slices.Contains(u.ForwardAuth, r.ForwardAuth.URL):
		return fmt.Sprintf("forward_auth.url %s is not in catalog.forward_auth of the file, which has the URLs that tags may name; the route denies every request", r.ForwardAuth.URL)
	}
	return ""
}

// listeners limits r to the listeners that it may have. reason says what it loses, and harmless
// that it keeps some. A route of connections has at least one of them then.
func (u *Rules) listeners(r *config.Route) (reason string, harmless bool) {
	open, kind := u.Listeners, "listener"
	if r.Protocol != "" {
		open, kind = u.StreamListeners, "listener with protocol: tcp"
	}
	if ends := r.Protocol == tags.ProtocolEndedTLS; ends || r.Protocol == tags.ProtocolTCP {
		kind += map[bool]string{true: " and tls", false: ", without tls,"}[ends]
		open = slices.DeleteFunc(slices.Clone(open), func(name string) bool { return u.EndsTLS[name] != ends })
	}
	if len(r.Listeners) == 0 && (len(open) > 0 || r.Protocol == "" && u.AllListeners) {
		if !u.AllListeners || r.Protocol != "" {
			r.Limit(open...)
		}
		return "", true
	}
	if len(open) == 0 {
		return "the file has no " + kind + " for tags", false
	}
	var allowed, other []string
	for _, name := range r.Listeners {
		if slices.Contains(open, name) {
			allowed = append(allowed, name)
		} else {
			other = append(other, name)
		}
	}
	if len(other) == 0 {
		return "", true
	}
	r.Limit(allowed...)
	return "no " + kind + " for tags has the name " + strings.Join(other, " or ") + ": want " + strings.Join(open, " or "), len(allowed) > 0
}
