package gateway

import (
	"fmt"
	"slices"
	"strings"

	"sluice/config"
	"sluice/tags"
)

// An askedKey says which requests tags ask for, whatever becomes of them.
type askedKey struct {
	dialect, host, path string
	canary              bool   // only those with X-Canary
	restricted          bool   // each tag for it says who may use it
	common              bool   // several services ask for it
	protocol            string // of connections; "": requests
	wide                bool   // connections of whatever name
}

// sharedKey is divided among the services that ask for it, and contestedKey belongs to one of them.
var (
	sharedKey    = &askedKey{dialect: config.DialectFabio, host: "shared.example.com", path: "/", common: true}
	contestedKey = &askedKey{dialect: config.DialectSluice, host: "contested.example.com", path: "/", common: true}
)

// askedKeys returns what a service asks for at times.
func askedKeys(service string) []*askedKey {
	host := service + ".example.com"
	return []*askedKey{
		{dialect: config.DialectSluice, host: host, path: "/"},
		{dialect: config.DialectSluice, host: host, path: "/n"},
		{dialect: config.DialectSluice, host: host, path: "/n", canary: true},
		{dialect: config.DialectSluice, host: host, path: "/n/secret", restricted: true},
		{dialect: config.DialectFabio, host: host, path: "/f"},
		{dialect: config.DialectTraefik, host: "t." + host, path: "/"},
		{dialect: config.DialectTraefik, host: "t." + host, path: "/deep", restricted: true},
		sharedKey, contestedKey,
		{dialect: config.DialectTraefik, protocol: tags.ProtocolTLS, host: service + ".wires.example.com"}, anyNameKey, plainKey,
	}
}

// matches reports whether a request is one of those of a key.
func (k *askedKey) matches(q foundRequest) bool {
	if k.protocol != "" || q.protocol != "" {
		return k.protocol != "" && q.protocol != "" && k.takesStream(q)
	}
	below := strings.HasPrefix(q.path, k.path) // no path differs in the rest of a segment only
	return k.host == q.host && below && (!k.canary || q.canary)
}

// An ask is how an instance asks for a key: with which tags, and what they come to.
type ask struct {
	*askedKey
	number   int // peers and clients learn it
	kind     askKind
	edit     string // of the path: stripped, prefixed; "": none
	priority int
	tags     []string
	meta     string // in place of tags
}

type askKind string

const (
	openAsk     askKind = "open"
	passAsk     askKind = "pass"     // for requests with X-Pass, by an authentication server
	listedAsk   askKind = "listed"   // for addresses, among them those of the clients
	nobodyAsk   askKind = "nobody"   // for an address that no client has
	closedAsk   askKind = "closed"   // wrong, and meant to restrict: it denies every request
	wrongAsk    askKind = "wrong"    // and makes no route
	redirectAsk askKind = "redirect" // leads elsewhere
)

func (a *ask) String() string {
	return fmt.Sprintf("%d: %s%s %s, priority %d, canary %t", a.number, a.host, a.path, a.kind, a.priority, a.canary)
}

// restricts reports whether the tags say who may use the route.
func (a *ask) restricts() bool {
	return a.kind == passAsk || a.kind == listedAsk || a.kind == nobodyAsk || a.kind == closedAsk
}

// pathAt returns the path that a peer gets.
func (a *ask) pathAt(path string) string {
	switch a.edit {
	case "stripped":
		return strings.TrimPrefix(path, a.path)
	case "prefixed":
		return "/more" + path
	}
	return path
}

// newAsk returns tags for a key at random.
func (c *foundRun) newAsk(k *askedKey) *ask {
	if k.protocol != "" {
		return c.newStreamAsk(k)
	}
	kinds := []askKind{openAsk, openAsk, openAsk, passAsk, passAsk, nobodyAsk, closedAsk, wrongAsk, redirectAsk}
	switch {
	case k.restricted:
		kinds = []askKind{passAsk, passAsk, passAsk, nobodyAsk, closedAsk}
	case k.common:
		kinds = []askKind{openAsk, openAsk, passAsk, nobodyAsk, closedAsk}
	}
	switch k.dialect {
	case config.DialectFabio: // has no authentication
		kinds = slices.DeleteFunc(kinds, func(kind askKind) bool { return kind == passAsk })
	case config.DialectTraefik:
		kinds = slices.DeleteFunc(kinds, func(kind askKind) bool { return kind == redirectAsk })
	}
	a := &ask{askedKey: k, number: len(c.asks), kind: pickOf(c.random, kinds...)}
	if a.kind == openAsk || a.kind == passAsk {
		if a.edit = pickOf(c.random, "", "", "prefixed", "stripped"); a.edit == "stripped" && k.path == "/" {
			a.edit = ""
		}
	}
	if k.dialect == config.DialectSluice && !k.common {
		a.priority = pickOf(c.random, 0, 0, 0, 1)
	}
	switch k.dialect {
	case config.DialectSluice:
		c.askNative(a)
	case config.DialectFabio:
		c.askFabio(a)
	case config.DialectTraefik:
		c.askTraefik(a)
	}
	c.keep(a)
	return a
}

func (c *foundRun) askNative(a *ask) {
	text := fmt.Sprintf("%s%s priority=%d", a.host, a.path, a.priority)
	if a.canary {
		text += " when.header.X-Canary=1"
	}
	switch a.edit {
	case "stripped":
		text += " strip=" + a.path
	case "prefixed":
		text += " add=/more"
	}
	told, authentication := fmt.Sprintf(" request_headers.set.X-Ask=%d", a.number), " forward_auth.response_headers=X-User forward_auth.url="
	switch a.kind {
	case openAsk:
		text += told
	case passAsk:
		text += told + authentication + c.servers.authURL
	case nobodyAsk:
		text += told + " allow=10.0.0.1"
	case closedAsk:
		text += pickOf(c.random, " alow=127.0.0.1", authentication+"http://127.0.0.1:1/", " allow=nonsense", " allow=127.0.0.1 =x", " allow=127.0.0.1 \x01")
	case wrongAsk:
		text += told + pickOf(c.random, " nonsense=1", " methods=", " service=other", " \x01", " "+strings.Repeat("x", 5000))
	case redirectAsk:
		text += fmt.Sprintf(" redirect=https://b.example.com/%d code=307", a.number)
	}
	if a.meta = text; a.path != "/n" || a.canary || a.kind == wrongAsk || c.random.IntN(2) == 0 {
		a.tags, a.meta = []string{"sluice.route=" + text}, ""
	}
}

func (c *foundRun) askFabio(a *ask) {
	text := fmt.Sprintf("urlprefix-%s%s host=n%d.example.com", a.host, a.path, a.number)
	switch a.edit {
	case "stripped":
		text += " strip=" + a.path
	case "prefixed":
		text += " prepend=/more"
	}
	switch a.kind {
	case nobodyAsk:
		text += " allow=ip:10.0.0.1"
	case closedAsk:
		text += pickOf(c.random, " auth=staff", " allow=127.0.0.1", " allow=ip:127.0.0.1 deny=ip:10.0.0.1", " allow=ip:127.0.0.1 redirect=x")
	case wrongAsk:
		text += pickOf(c.random, " redirect=999,x", " proto=nonsense", " strip=x", " \x01")
	case redirectAsk:
		text += fmt.Sprintf(" redirect=307,https://b.example.com/%d", a.number)
	}
	a.tags = []string{text + pickOf(c.random, "", "", " weight=0.2", " weight=0.5")}
}

func (c *foundRun) askTraefik(a *ask) {
	name := map[string]string{"/": "root", "/deep": "deep"}[a.path]
	rule := fmt.Sprintf("Host(`%s`)", a.host)
	if a.path != "/" {
		rule += fmt.Sprintf(" && PathPrefix(`%s`)", a.path)
	}
	middlewares := []string{name + "told"}
	middleware := func(name, key, value string) {
		a.tags = append(a.tags, fmt.Sprintf("traefik.http.middlewares.%s.%s=%s", name, key, value))
	}
	use := func(kind, key, value string) {
		middlewares = append(middlewares, name+kind)
		middleware(name+kind, kind+"."+key, value)
	}
	middleware(name+"told", "headers.customrequestheaders.X-Ask", fmt.Sprint(a.number))
	switch a.edit {
	case "stripped":
		use("stripprefix", "prefixes", a.path)
	case "prefixed":
		use("addprefix", "prefix", "/more")
	}
	switch a.kind {
	case passAsk:
		use("forwardauth", "address", c.servers.authURL)
		middleware(name+"forwardauth", "forwardauth.authresponseheaders", "X-User")
	case nobodyAsk:
		use("ipallowlist", "sourcerange", "10.0.0.1/32")
	case closedAsk:
		switch c.random.IntN(3) {
		case 0:
			middlewares = append(middlewares, "missing")
		case 1:
			use("basicauth", "users", "ada:x")
		case 2:
			a.tags = append(a.tags, "traefik.http.routers."+name+".midlewares=x")
		}
	case wrongAsk:
		rule = pickOf(c.random, "Host(`"+a.host, "Nonsense(`x`)", rule+" && Host(`other.example.com`)")
	}
	a.tags = append(a.tags, "traefik.http.routers."+name+".rule="+rule, "traefik.http.routers."+name+".middlewares="+strings.Join(middlewares, ","))
}

func dialectOf(tag string) string {
	switch {
	case strings.HasPrefix(tag, "sluice."):
		return config.DialectSluice
	case strings.HasPrefix(tag, "urlprefix-"):
		return config.DialectFabio
	}
	return config.DialectTraefik
}
