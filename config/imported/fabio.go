package imported

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"sluice/tags"
)

// fabio has what the properties of fabio need of each other. Its routes are in tags, which sluice
// reads with catalog.tags.
type fabio struct {
	*draft
	addresses leaf
	sources   map[string]map[string]string // of certificates, by name
	shut      bool                         // tags mean something else
}

func readFabio(d *draft, files []File) error {
	var leaves []leaf
	for _, file := range files {
		leaves = append(leaves, properties(file)...)
	}
	if len(leaves) > maxValues {
		return errTooLarge
	}
	f := &fabio{draft: d, addresses: leaf{[]string{"proxy.addr"}, []string{":9999"}, d.top}, sources: make(map[string]map[string]string)}
	d.set(d.top, []string{"fabio"}, "catalog", "tags")
	d.set(d.top, []tags.Keys{{"service": "*", "hosts": []string{"*"}}}, "catalog", "claims")
	d.apply(leaves, f.rows())
	for _, options := range optionsOf(f.addresses.value()) {
		f.listen(options)
	}
	if f.shut {
		delete(d.sections, "catalog")
	}
	return nil
}

// rows are fabio's properties. A dot in a name is part of a pattern.
func (f *fabio) rows() []row {
	byAddress := []string{"defaults", "route", "request_headers", "set"}
	return []row{
		{"proxy.addr", func(l leaf, _ []string) { f.addresses = l }},
		{"proxy.cs", f.certificates},
		{"proxy.auth", f.passwords},
		{"proxy.strategy", f.words(map[string]string{"rnd": "random", "rr": "round_robin"}, "defaults", "service", "balance", "policy")},
		{"proxy.matcher", f.onlyPrefix},
		{"proxy.dialtimeout", f.duration("defaults", "service", "timeouts", "connect")},
		{"proxy.responseheadertimeout", f.duration("defaults", "service", "timeouts", "response_header")},
		{"proxy.keepalivetimeout", f.duration("defaults", "service", "keepalive", "idle")},
		{"proxy.maxconn", f.to("defaults", "service", "keepalive", "max")},
		{"proxy.shutdownwait", f.to("shutdown", "grace")},
		{"proxy.deregistergraceperiod", f.to("shutdown", "delay")},
		{"proxy.header.clientip", func(l leaf, _ []string) {
			f.set(l.at, "$client_address", append(byAddress, l.value())...)
		}},
		{"registry.backend", func(l leaf, _ []string) {
			if l.value() != "consul" {
				f.shut = true
				f.note(l.at, "registry.backend: sluice reads routes from tags in Consul only: write services and routes into the file")
			}
		}},
		{"registry.consul.addr", f.list("consul", "addresses")},
		{"registry.consul.token", f.unlike("a secret: write it to a file, and set consul.token_file")},
		{"registry.consul.tagprefix", f.to("catalog", "fabio", "prefix")},
		{"registry.consul.tls.cafile", f.to("consul", "tls", "ca")},
		{"registry.consul.tls.certfile", f.to("consul", "tls", "cert")},
		{"registry.consul.tls.keyfile", f.to("consul", "tls", "key")},
		{"registry.consul.tls.insecureskipverify", f.to("consul", "tls", "skip_verify")},
		{"registry.consul.register.name", f.to("consul", "register", "service")},
		{"registry.consul.register.tags", func(l leaf, _ []string) {
			f.set(l.at, strings.Split(l.value(), ","), "consul", "register", "tags")
		}},
		{"registry.consul.register.**", f.unlike("sluice registers its first listener: see consul.register")},
		{"registry.consul.service.status", f.unlike("sluice uses instances with a warning too: set consul.passing_only of a service that must not")},
		{"registry.consul.checksrequired", f.unlike("in sluice every check of an instance counts")},
		{"registry.consul.kvpath", f.unlike("routes in Consul's KV store have another form: see dynamic")},
		{"registry.**", f.unlike("sluice follows Consul by blocking queries: nothing to do")},
		{"log.level", f.words(logLevels, "log", "level")},
		{"log.access.target", func(l leaf, _ []string) { f.set(l.at, cmp.Or(l.value(), "off"), "access_log", "path") }},
		{"log.access.format", f.words(map[string]string{"common": "combined", "combined": "combined"}, "access_log", "format")},
		{"metrics.**", f.unlike("the admin API has all metrics for Prometheus, at /metrics")},
		{"ui.**", f.unlike("the page is at the admin API, http://127.0.0.1:8081; another address needs admin.token_file")},
	}
}

// properties returns the properties of a file, as Java writes them. Each has a path for its parts.
func properties(file File) (leaves []leaf) {
	text, begin, number := "", 0, 0
	for line := range strings.Lines(file.Text) {
		number++
		line = strings.TrimSpace(line)
		if text == "" {
			begin = number
			if line == "" || line[0] == '#' || line[0] == '!' {
				continue
			}
		}
		backslashes := len(line) - len(strings.TrimRight(line, `\`))
		if text += line; backslashes%2 == 1 {
			text = text[:len(text)-1]
			continue
		}
		leaves = append(leaves, property(text, Place{file.Name, begin}))
		text = ""
	}
	if text != "" {
		leaves = append(leaves, property(text, Place{file.Name, begin}))
	}
	return leaves
}

func property(text string, at Place) leaf {
	end := strings.IndexAny(text, "=: \t")
	if end < 0 {
		end = len(text)
	}
	value := strings.TrimLeft(text[end:], " \t")
	if value != "" && strings.ContainsRune("=:", rune(value[0])) {
		value = strings.TrimLeft(value[1:], " \t")
	}
	return leaf{strings.Split(text[:end], "."), []string{strings.ReplaceAll(value, `\`, "")}, at}
}

// optionsOf splits "NAME;KEY=VALUE;…,…" into its entries. What is no KEY=VALUE has the key "".
func optionsOf(value string) (all []map[string]string) {
	for entry := range strings.SplitSeq(value, ",") {
		options := make(map[string]string)
		for option := range strings.SplitSeq(entry, ";") {
			key, text, found := strings.Cut(strings.TrimSpace(option), "=")
			if !found {
				key, text = "", key
			}
			options[strings.ToLower(key)] = strings.Trim(text, `"`)
		}
		all = append(all, options)
	}
	return all
}

func (f *fabio) certificates(l leaf, _ []string) {
	for _, options := range optionsOf(l.value()) {
		f.sources[options["cs"]] = options
	}
}

// onlyPrefix leaves routes of tags out if they are matched in another way: a route that restricts
// could get less than it restricts.
func (f *fabio) onlyPrefix(l leaf, _ []string) {
	if l.value() != "prefix" {
		f.shut = true
		f.note(l.at, "proxy.matcher: sluice matches paths of fabio's tags by prefix only, so it would not deny all that fabio denies: "+
			"services get no routes by their tags; change the tags, then set catalog.tags")
	}
}

// passwords makes the named actions that auth=NAME in tags uses.
func (f *fabio) passwords(l leaf, _ []string) {
	for _, options := range optionsOf(l.value()) {
		keys := tags.Keys{"offered_to": []string{"tags"}}
		f.add("actions", cmp.Or(options["name"], "unnamed"), l.at, keys)
		if options["type"] != "basic" || options["file"] == "" {
			keys["deny"] = everybody
			f.note(l.at, "proxy.auth: sluice has no authentication of type %q: the actions %q deny every request; want basic_auth, jwt or forward_auth", options["type"], options["name"])
			continue
		}
		keys.Set(options["file"], "basic_auth", "users_file")
		if realm := options["realm"]; realm != "" {
			keys.Set(realm, "basic_auth", "realm")
		}
	}
}

func (f *fabio) listen(options map[string]string) {
	address, at, why := options[""], f.addresses.at, ""
	keys := tags.Keys{"name": address, "address": address}
	proto := cmp.Or(options["proto"], "http")
	source := f.sources[options["cs"]]
	switch {
	case proto == "tcp" && options["cs"] == "":
		keys["protocol"] = "tcp"
	case !slices.Contains([]string{"http", "https", "grpc", "grpcs"}, proto):
		why = "sluice has no listener with proto=" + proto + ": want protocol: tcp, with service or sni"
	case options["cs"] == "" && proto != "https" && proto != "grpcs":
	case source["type"] == "file":
		keys.Set([]tags.Keys{{"cert": source["cert"], "key": cmp.Or(source["key"], source["cert"])}}, "tls", "certificates")
		if ca := source["clientca"]; ca != "" {
			keys.Set(ca, "tls", "client_ca")
		}
	case source["type"] == "consul" && source["clientca"] == "":
		_, prefix, _ := strings.Cut(source["cert"], "/v1/kv/")
		prefix, _, _ = strings.Cut(prefix, "?")
		keys.Set([]tags.Keys{{"consul_kv": strings.Trim(prefix, "/")}}, "tls", "certificates")
	default:
		why = "its certificates do not carry over: want tls.certificates with files or consul_kv, tls.client_ca, or tls.acme"
	}
	if why != "" {
		f.note(at, "proxy.addr: %s is left out: %s", address, why)
		return
	}
	for _, option := range slices.Sorted(maps.Keys(options)) {
		switch version, _ := strings.CutPrefix(strings.ToLower(options[option]), "tls1"); {
		case slices.Contains([]string{"", "cs", "proto"}, option):
		case option == "pxyproto":
			keys["proxy_protocol"] = tags.Keys{"from": everybody}
			f.note(at, "proxy.addr: every connection to %s begins with a PROXY header: name the proxies in proxy_protocol.from", address)
		case option == "tlsmin" && keys["tls"] != nil && (version == "2" || version == "3"):
			keys.Set("1."+version, "tls", "min_version")
		default:
			f.note(at, "proxy.addr: the option %s of %s does not carry over: see client.timeouts, and tls of the listener", option, address)
		}
	}
	f.add("listeners", "", at, keys)
}
