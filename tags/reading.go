package tags

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"sluice/observe/excerpt"
	"sluice/route"
)

// Keys are keys of the configuration file with their values: strings, lists of strings, lists
// of Keys, or Keys.
type Keys map[string]any

// ShortKeys are spellings of keys of a route in sluice's own tags.
var ShortKeys = map[string]string{
	"strip":    "strip_prefix",
	"add":      "add_prefix",
	"timeout":  "timeouts.response_header",
	"listener": "listeners",
	"method":   "methods",
	"code":     "redirect.code",
}

// Instance is an instance as the dialects see it. They do not change it.
type Instance struct {
	Service string // its name in the registry
	Port    int    // 0: unknown
	Tags    []string
	Meta    map[string]string
}

// Reading is what the tags of one instance ask for. It does not share memory that changes.
type Reading struct {
	// Tags are the tags of the dialect, sorted, also wrong ones; for a key of the meta "KEY=VALUE".
	Tags    []string
	Routes  []Route
	Service Keys // settings of the service, below services.NAME; nil: none
	// UpstreamUnread: a tag about upstream cannot be read, or contradicts another one.
	UpstreamUnread bool
	Complaints     []Complaint
}

// Route is a route that tags ask for.
type Route struct {
	// Tags are the tags that make the route, sorted, each once. Another instance asks for
	// the same route if it has the same ones.
	Tags []string
	// Protocol is one of those below for a route of connections, whose Keys are
	// host, host_regexp, listeners, allow and deny; empty: of requests.
	Protocol string
	// Port is that of the listeners that the route is for, with ProtocolTCP; empty: by their names.
	Port string
	// Keys are the keys of a route in the configuration file, except service, group,
	// split and priority.
	Keys Keys
	// More are conditions that have no key; nil: none. They do not change.
	More *route.Conditions
	// Priority is the route's in its dialect.
	Priority int
	// Weight is the share of each instance in the route's requests, among all services that share
	// it; 0: an equal part of what the others leave.
	Weight float64
	// Ranked says that Priority follows Traefik's rule: routes are compared by Priority
	// first, which is the length of the rule if no tag sets it.
	Ranked bool
	// PrioritySet says that a tag sets Priority: only then it counts beside routes of other
	// services, from which the length of a rule takes nothing.
	PrioritySet bool
	// Closed says that the route must deny every request.
	Closed bool
	// Meta says that an entry of the meta asks for the route, and no tag.
	Meta bool
}

// Protocols of routes of connections.
const (
	// ProtocolTLS is for TLS clients, by the server name that they ask for.
	ProtocolTLS = "tls"
	// ProtocolEndedTLS is the same, but TLS ends at the listener.
	ProtocolEndedTLS = "tls_ended"
	// ProtocolTCP is for all connections for which no server name decides.
	ProtocolTCP = "tcp"
)

// Complaint says what is wrong with a tag.
type Complaint struct {
	Tag    string // as registered; for a key of the meta "KEY=VALUE"
	Column int    // of the first wrong byte, from 1; 0: the whole tag
	Want   string // what is wrong, and what is allowed
	// Harmless says that the route exists nevertheless, without what the complaint names.
	Harmless bool
}

// Limits on what one instance may ask for.
const (
	MaxTag        = 4096 // bytes of a tag
	MaxRoutes     = 256  // routes of an instance
	maxComplaints = 1000 // about an instance: many routers may name a middleware with wrong keys
)

// Control returns the index of the first control character of a tag (a byte below 0x20, or
// 0x7F), or -1.
func Control(tag string) int {
	return strings.IndexFunc(tag, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// Check returns a complaint about a tag that no dialect accepts, or nil. Such a tag makes no route,
// or with restrictions one that denies every request.
func Check(tag string) *Complaint {
	if n := Control(tag); n >= 0 {
		return &Complaint{Tag: tag, Column: n + 1, Want: "has a control character: want printable text"}
	}
	if len(tag) > MaxTag {
		return &Complaint{Tag: tag, Column: MaxTag + 1, Want: fmt.Sprintf("is too long: want at most %d bytes", MaxTag)}
	}
	return nil
}

// DeniesUnread is the further complaint about a tag with restrictions that [Check] refuses.
const DeniesUnread = "it says who may use the route, and is not read: the route denies every request"

// Blanks returns a tag with a blank in place of each control character.
func Blanks(tag string) string {
	if Control(tag) < 0 {
		return tag
	}
	blanked := []byte(tag)
	for i, c := range blanked {
		if c < 0x20 || c == 0x7f {
			blanked[i] = ' '
		}
	}
	return string(blanked)
}

// Shorten returns at most 200 bytes of s.
func Shorten(s string) string { return excerpt.Of(s, 200) }

// Set sets the value at a path of keys. A value on the way that is not Keys is replaced.
func (k Keys) Set(value any, path ...string) {
	for _, key := range path[:len(path)-1] {
		below, ok := k[key].(Keys)
		if !ok {
			below = make(Keys)
			k[key] = below
		}
		k = below
	}
	k[path[len(path)-1]] = value
}

// Get returns the value at a path of keys, or nil.
func (k Keys) Get(path ...string) any {
	for _, key := range path[:len(path)-1] {
		below, ok := k[key].(Keys)
		if !ok {
			return nil
		}
		k = below
	}
	return k[path[len(path)-1]]
}

// Clone returns a deep copy of k.
func (k Keys) Clone() Keys {
	copied := make(Keys, len(k))
	for key, value := range k {
		copied[key] = cloneValue(value)
	}
	return copied
}

func cloneValue(value any) any {
	switch v := value.(type) {
	case Keys:
		return v.Clone()
	case []string:
		return slices.Clone(v)
	case []Keys:
		list := make([]Keys, len(v))
		for i := range v {
			list[i] = v[i].Clone()
		}
		return list
	}
	return value
}

// String returns k in JSON with sorted keys: equal for equal Keys. Values in
// Keys that have no JSON are printed as Go prints them.
func (k Keys) String() string {
	text, err := json.Marshal(k)
	if err != nil {
		return fmt.Sprint(map[string]any(k))
	}
	return string(text)
}

// Restricts reports whether the keys of a route say who may use it, as named actions may.
func (k Keys) Restricts() bool {
	for key, value := range k {
		if value != nil && (key == "use" || route.KeyRestricts(key)) {
			return true
		}
	}
	return false
}

// Restricts reports whether the route says who may use it.
func (r *Route) Restricts() bool { return r.Closed || r.Keys.Restricts() }

// Deny makes r deny every request, with the conditions that it has.
func (r Route) Deny() Route {
	match := make(Keys)
	for _, key := range []string{"host", "host_regexp", "path", "match", "methods", "when", "listeners"} {
		if value, ok := r.Keys[key]; ok {
			match[key] = cloneValue(value)
		}
	}
	match["deny"] = []string{"0.0.0.0/0", "::/0"}
	r.Keys, r.Closed = match, true
	return r
}

// Set sets settings of the service, which tag asks for. Settings under one key belong together:
// if another tag has set the key to other ones, these stay, Set adds a complaint and returns false.
func (r *Reading) Set(service Keys, tag string) bool {
	if r.Service == nil && len(service) > 0 {
		r.Service = make(Keys)
	}
	var conflicts []string
	for _, key := range slices.Sorted(maps.Keys(service)) {
		if mine, both := r.Service[key]; !both {
			r.Service[key] = cloneValue(service[key])
		} else if !reflect.DeepEqual(mine, service[key]) {
			conflicts = append(conflicts, key)
		}
	}
	if len(conflicts) > 0 {
		r.Complain(Complaint{Tag: tag, Want: "another tag of the instance asks for another " + strings.Join(conflicts, " and ") +
			": want one for all routes of a service"})
	}
	return len(conflicts) == 0
}

// Complain adds a complaint, unless there are too many.
func (r *Reading) Complain(c Complaint) {
	if len(r.Complaints) < maxComplaints {
		r.Complaints = append(r.Complaints, c)
	}
}

// Limit drops the routes beyond MaxRoutes, with a complaint. Those with restrictions stay before
// others: without them, a broader route could answer.
func (r *Reading) Limit() {
	if len(r.Routes) <= MaxRoutes {
		return
	}
	open := func(route Route) int {
		if route.Restricts() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(r.Routes, func(a, b Route) int { return open(a) - open(b) })
	r.Complain(Complaint{Tag: strings.Join(r.Routes[MaxRoutes].Tags, " "),
		Want: fmt.Sprintf("the tags make too many routes: want at most %d, the rest is ignored", MaxRoutes)})
	r.Routes = r.Routes[:MaxRoutes]
}

// Network returns a network or an address in its normal form.
func Network(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.String(), true
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return "", false
	}
	return p.Masked().String(), true
}

// SortedTags returns tags sorted, each once, in a new slice.
func SortedTags(tags ...string) []string {
	return slices.Compact(slices.Sorted(slices.Values(tags)))
}

// usersOf are users and their hashed passwords in a tag: of basic_auth, and of Traefik's basicauth
// and digestauth.
var usersOf = regexp.MustCompile(`(?is)(auth\.users\s*=).*`)

// Masked returns a tag for whoever need not have the right to read the registry: without users and
// what follows.
func Masked(tag string) string {
	if !strings.Contains(strings.ToLower(tag), "auth.users") { // nearly all tags
		return tag
	}
	return usersOf.ReplaceAllString(tag, "$1***")
}
