package imported

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sluice/tags"
)

// answer is what requests get that nothing before it has answered.
type answer struct {
	match tags.Keys // which requests it is for; empty: all
	keys  tags.Keys // of a route; nil: it denies
	at    Place
}

// answers returns the answers of a server, in the order in which nginx chooses. Where it has no
// location is 403, and no file.
func (n *nginx) answers(server *directive) []answer {
	all := n.stops(server)
	if last := len(all) - 1; last < 0 || len(all[last].match) > 0 {
		all = append(append(all, n.locate(server)...), answer{at: server.at})
	}
	return all
}

// onHost is an if that asks for a host, as Certbot writes them.
var onHost = regexp.MustCompile(`^if \( ?\$host = (\S+?) ?\)$`)

// stops returns the answers of return, rewrite and if in a block, which come before all others, up
// to one for all requests.
func (n *nginx) stops(d *directive) (all []answer) {
	for _, c := range d.block {
		a, known := answer{match: tags.Keys{}, at: c.at}, false
		host := onHost.FindStringSubmatch(strings.Join(c.words, " "))
		switch {
		case c.word(0) == "return":
			a.keys, known = n.returned(d, c), true
		case c.word(0) == "rewrite" && !c.breaks(d):
			known = n.rewritten(d, c, &a)
		case host != nil && d.word(0) == "server" && len(c.block) == 1 && strings.HasPrefix(strings.Join(c.block[0].words, " "), "return 30"):
			a.keys, known = n.returned(d, c.block[0]), true
			a.match["host"] = strings.ToLower(host[1])
		case c.word(0) == "if":
			d.leftOutIf(n.draft, c)
		}
		if !known {
			continue
		}
		if d.closed() && a.keys["redirect"] == nil {
			a.keys = nil
		}
		n.left -= len(a.keys.String())
		if all = append(all, a); len(a.match) == 0 || n.left < 0 {
			break
		}
	}
	return all
}

// redirects reports whether a directive is a rewrite that redirects.
func (d *directive) redirects() bool {
	return d.word(0) == "rewrite" && (d.word(3) == "permanent" || d.word(3) == "redirect" || origin.MatchString(d.word(2)))
}

// breaks reports whether a rewrite changes the path of what a location forwards.
func (d *directive) breaks(in *directive) bool {
	return d.word(3) == "break" && in.word(0) == "location" && !d.redirects()
}

// everyPath are expressions that any path fits.
var everyPath = []string{"^", ".*", "^.*$", "^(.*)", "^(.*)$", "^/(.*)", "^/(.*)$", "^/"}

// rewritten reads a rewrite that redirects, or else denies: nginx chooses a location again, which
// may restrict.
func (n *nginx) rewritten(d, c *directive, a *answer) bool {
	expression, to, flag := c.word(1), c.word(2), c.word(3)
	kind, path := d.place()
	all := slices.Contains(everyPath, expression)
	within := all || (kind == "" || kind == "^~") && (strings.Trim(path, "/") == "" || strings.HasPrefix(expression, "^"+path))
	if c.redirects() {
		a.keys = redirect(expression, to, cmp.Or(map[string]string{"permanent": "301"}[flag], "302"))
		if a.keys == nil || !within {
			n.note(c.at, "rewrite %s: left out; see redirect of a route", expression)
			return false
		}
	} else {
		d.shut = d.shut || !within
		n.note(c.at, "rewrite %s: it chooses a location again, which may restrict: here is 403; see rewrite of a route, as of break in a location", expression)
	}
	if !all {
		a.match["path"], a.match["match"] = expression, "regexp"
	}
	return within
}

// leftOutIf notes what is in an if, which sluice does not have. What may deny then does it always.
func (d *directive) leftOutIf(to *draft, c *directive) {
	to.note(c.at, "if: left out; see when of a route")
	for _, below := range c.block {
		name, status := below.word(0), below.word(1)
		denies := name == "rewrite" && !below.redirects() || name == "return" && (status >= "400" && status <= "599")
		if denies || !carried.MatchString(name) && !harmlessDirectives.MatchString(name) {
			d.close(to, below)
		} else {
			to.note(below.at, "%s: left out with its if", name)
		}
	}
}

// returned returns the keys for a return in a block; nil: it denies.
func (n *nginx) returned(d, c *directive) tags.Keys {
	status, text := c.word(1), c.word(2)
	if _, err := strconv.Atoi(status); err != nil {
		status, text = "302", status
	}
	for _, h := range d.all("add_header") {
		n.note(h.at, "add_header %s: answers of sluice's own do not have it here", h.word(1))
	}
	if status == "403" || status == "444" {
		return nil
	}
	if slices.Contains([]string{"301", "302", "303", "307", "308"}, status) {
		expression := ""
		if kind, path := d.place(); strings.HasPrefix(kind, "~") {
			expression = path
		}
		keys := redirect(expression, text, status)
		if keys == nil {
			n.note(c.at, "return %s: sluice has no such variable: here 403; see redirect of a route", status)
		}
		return keys
	}
	keys := tags.Keys{"status": status}
	if body, known := variables(text, inHeaders); !known {
		n.note(c.at, "return %s: sluice has no such variable: here without the text; see direct_response of a route", status)
	} else if text != "" {
		keys["body"] = body
	}
	if kind := d.value("default_type"); kind != "" && text != "" {
		keys["content_type"] = kind
	}
	return tags.Keys{"direct_response": keys}
}

// origin is the part of a URL before its path. query is what sluice adds to paths by itself.
var (
	origin = regexp.MustCompile(`^(https?|\$scheme)://([^/$]|\$\{?[a-z_]+\}?)*`)
	query  = strings.NewReplacer("$is_args$args", "", "?$args", "", "?$query_string", "")
)

// redirect returns the keys of a redirect to a URL, which may have groups of an expression in its
// path; nil: it has no counterpart.
func redirect(expression, to, code string) tags.Keys {
	to = strings.TrimSuffix(query.Replace(to), "?")
	if text, known := variables(to, inRedirects); known && text != "" {
		return tags.Keys{"redirect": tags.Keys{"to": text, "code": code}}
	}
	begin := origin.FindString(to)
	// Of two slashes at the beginning sluice sends one.
	base, known := variables(cmp.Or(begin, "/"), inRedirects)
	path, grouped := variables(to[len(begin):], groups)
	if !known || !grouped || path == "" || expression == "" {
		return nil
	}
	return tags.Keys{"rewrite": tags.Keys{"regexp": expression, "to": path}, "redirect": tags.Keys{"to": base + "$path", "code": code}}
}

// Variables that sluice has too: in headers, in URLs of redirects, to which it adds the query, and
// in paths.
var (
	inHeaders = map[string]string{
		"host": "host", "http_host": "authority", "scheme": "scheme", "remote_addr": "client_address", "remote_user": "user",
		"request_method": "method", "request_id": "request_id", "args": "query", "query_string": "query",
	}
	inRedirects = map[string]string{
		"host": "host", "http_host": "authority", "scheme": "scheme", "request_uri": "path", "uri": "path", "args": "query", "query_string": "query",
	}
	groups     = map[string]string{"1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "6", "7": "7", "8": "8", "9": "9"}
	variableOf = regexp.MustCompile(`\$(\w+|\{\w+\})`)
)

// variables returns a text with sluice's variables, and whether it has all of them.
func variables(text string, names map[string]string) (result string, known bool) {
	known = true
	result = variableOf.ReplaceAllStringFunc(text, func(v string) string {
		name, has := names[strings.Trim(v, "${}")]
		if known = known && has; v[1] == '{' || groups[name] != "" {
			name = "{" + name + "}"
		}
		return "$" + name
	})
	return result, known
}
