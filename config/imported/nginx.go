package imported

import (
	"errors"
	"path"
	"regexp"
	"strings"

	"sluice/tags"
)

// nginx is a configuration of nginx.
type nginx struct {
	*draft
	http     *directive
	services map[string]string     // names, by scheme and address; empty: it has no servers
	ports    map[string]*port      // by address
	zones    map[string]*directive // limit_req_zone, by "zone=NAME"
	ordered  bool                  // routes need priorities, since sluice would choose others
	left     int                   // how many parts of routes there may be
}

// maxEntries limits the parts of routes: names, headers and networks count for each route again.
const maxEntries = 10 * maxValues

func readNginx(d *draft, files []File) error {
	n := &nginx{
		draft: d, http: &directive{line: line{[]string{"http"}, d.top}}, services: make(map[string]string), ports: make(map[string]*port),
		zones: make(map[string]*directive),
		left:  maxEntries,
	}
	main, err := n.read(files)
	if err != nil {
		return err
	}
	n.judge(n.http)
	if err := n.serve(); err != nil {
		return err
	}
	for _, c := range main.block {
		switch c.word(0) {
		case "http":
		case "stream":
			n.stream(c)
		default:
			n.leftOut(c)
			for _, below := range c.block {
				n.leftOut(below)
			}
		}
	}
	return nil
}

// mainBlocks are blocks of the file that includes others, in the order in which they tell that.
var mainBlocks = []*regexp.Regexp{regexp.MustCompile(`(^|[;}\s])events\s*\{`), regexp.MustCompile(`(^|[;}\s])http\s*\{`), regexp.MustCompile("")}

// read reads the files into http, and returns what is outside of it. What no other file includes
// is in http too.
func (n *nginx) read(files []File) (main *directive, err error) {
	left, known := maxValues, make(map[string]bool)
	var read func(f File, in *directive, depth int) error
	read = func(f File, in *directive, depth int) error {
		if known[f.Name] = true; depth > maxDepth {
			return errors.New("files include each other")
		}
		return parse(f, in, &left, func(d *directive) error {
			found := false
			for _, other := range files {
				if other.Name != f.Name && includes(d.word(1), other.Name) {
					found = true
					if err := read(other, d.in, depth+1); err != nil {
						return err
					}
				}
			}
			if !found {
				n.missing(d)
			}
			return nil
		})
	}
	main = new(directive)
	for _, block := range mainBlocks {
		for _, f := range files {
			root := new(directive)
			if known[f.Name] || !block.MatchString(f.Text) {
				continue
			}
			if err := read(f, root, 0); err != nil {
				return nil, err
			}
			blocks := []*directive{root}
			if root.named["http"] != nil || root.named["stream"] != nil || root.named["events"] != nil {
				blocks, main.block = root.named["http"], append(main.block, root.block...)
			}
			for _, b := range blocks {
				n.http.shut = n.http.shut || b.shut
				for _, c := range b.block {
					n.http.add(c)
				}
			}
		}
	}
	if len(main.block)+len(n.http.block) == 0 {
		return nil, errors.New("no directives")
	}
	return main, nil
}

// includes reports whether an include names a file, by as many of its last folders as are known.
func includes(include, file string) bool {
	pattern, name := strings.Split(include, "/"), strings.Split(file, "/")
	n := min(len(pattern), len(name))
	same, _ := path.Match(strings.Join(pattern[len(pattern)-n:], "/"), strings.Join(name[len(name)-n:], "/"))
	return same
}

// withoutRules are files that restrict nobody, as they come with nginx and Certbot.
var withoutRules = regexp.MustCompile(`(^|/)(mime\.types|(fastcgi|proxy|scgi|uwsgi)_params|options-ssl-nginx\.conf)$`)

// missing notes a file that is not given. What may deny is in it.
func (n *nginx) missing(d *directive) {
	several := strings.ContainsAny(d.word(1), "*?[") && (d.in.in == nil || d.in.word(0) == "http")
	if d.in.shut = d.in.shut || !several && !withoutRules.MatchString(d.word(1)); d.in.shut {
		n.note(d.at, "include %s: give it to sluice import too: until then what it is in denies every request", d.word(1))
	} else {
		n.note(d.at, "include %s: if it has more than is here, give it to sluice import too", d.word(1))
	}
}

var (
	// carried are directives that carry over, or say what sluice does by itself.
	carried = regexp.MustCompile(`^(server|location|upstream|listen|server_name|return|rewrite|if|set|break|internal|(proxy|grpc)_pass|proxy_set_header|` +
		`add_header|proxy_hide_header|allow|deny|satisfy|auth_basic(_user_file)?|client_max_body_size|proxy_(connect|read)_timeout|` +
		`proxy_next_upstream(_tries)?|limit_req(_zone)?|gzip(_types|_min_length|_vary|_proxied)?|default_type|(set_)?real_ip_[a-z]+|types|` +
		`ssl_(certificate(_key)?|client_certificate|verify_client|crl|protocols)|proxy_ssl_(verify|name|trusted_certificate|server_name)|` +
		`proxy_http_version|proxy_(request_)?buffering|http2|sendfile|tcp_no(push|delay))$`)
	// harmlessDirectives are others that restrict nobody.
	harmlessDirectives = regexp.MustCompile(`^(absolute_redirect|access_log|add_trailer|a?io|alias|ancient_browser.*|autoindex.*|brotli.*|charset.*|` +
		`chunked_transfer_encoding|client_(body|header)_.*|connection_pool_size|directio.*|empty_gif|error_(log|page)|etag|expires|fastcgi_.*|geo|geoip.*|` +
		`grpc_.*|gunzip.*|gzip.*|(body|header)_filter_by_lua.*|http[23]_.*|if_modified_since|ignore_invalid_headers|image_filter.*|index|init_.*|js_(import|path|set|var)|` +
		`keepalive_.*|large_client_header_buffers|limit_(conn|rate|req).*|lingering_.*|log_.*|lua_.*|map.*|max_ranges|memcached_.*|merge_slashes|mirror.*|` +
		`more_.*|msie_.*|open_.*|opentracing.*|otel_.*|output_buffers|port_in_redirect|postpone_output|proxy_.*|quic_.*|read_ahead|recursive_error_pages|` +
		`request_pool_size|reset_timedout_connection|resolver.*|rewrite_log|root|scgi_.*|send_.*|sendfile.*|server_(name_in|names_hash|tokens).*|` +
		`split_clients|ssi.*|ssl_(buffer_size|ciphers|conf_command|dhparam|early_data|ecdh_curve|password_file|prefer_.*|session_.*|stapling.*|` +
		`trusted_certificate|verify_depth)|status_zone|stub_status|sub_filter.*|subrequest_.*|tcp_.*|try_files|types.*|underscores_in_headers|` +
		`uninitialized_variable_warn|userid.*|uwsgi_.*|variables_.*|vhost_traffic_status.*|xslt.*)$`)
	// instead are keys that do what a directive does.
	instead = map[string]string{
		"access_log": "see access_log", "log_format": "see access_log.format", "error_log": "see log", "error_page": "see error_pages of a route",
		"limit_conn": "see client.limits.connections_per_address", "limit_conn_zone": "see client.limits.connections_per_address",
		"resolver":           "sluice asks Consul itself; see dns of a service",
		"proxy_send_timeout": "see timeouts of a route", "proxy_next_upstream_timeout": "see retry.per_try_timeout of a route",
		"ssl_ciphers": "see tls.profile of the listener", "root": "sluice serves no files", "alias": "sluice serves no files", "try_files": "sluice serves no files",
		"map": "its variable has no counterpart; see when of a route", "geo": "its variable has no counterpart; see when of a route",
		"split_clients": "its variable has no counterpart; see split of a service", "ssl_session_tickets": "see tls.ticket_keys of the listener",
		"proxy_cache": "sluice has no cache", "fastcgi_pass": "sluice forwards HTTP only", "uwsgi_pass": "sluice forwards HTTP only",
	}
)

// clientTimeouts are keys of client.timeouts.
var clientTimeouts = map[string]string{
	"keepalive_timeout": "idle", "client_header_timeout": "head", "client_body_timeout": "body", "send_timeout": "write",
}

// leftOut notes a directive without a counterpart.
func (n *nginx) leftOut(d *directive) {
	if want := instead[d.word(0)]; want != "" {
		n.note(d.at, "%s: %s", d.word(0), want)
	} else {
		n.note(d.at, "%s: sluice has no such setting", d.word(0))
	}
}

// judge notes what does not carry over. A directive that nobody knows may deny.
func (n *nginx) judge(in *directive) {
	for _, c := range in.block {
		name := c.word(0)
		switch within := in.word(0) == "location" && strings.Contains(name, "real_ip"); {
		case clientTimeouts[name] != "" && in == n.http:
			n.set(c.at, timeOf(c.word(1)), "client", "timeouts", clientTimeouts[name])
		case name == "proxy_next_upstream" && c.word(1) != "off":
			n.note(c.at, "proxy_next_upstream: sluice repeats what got no answer, and what may be sent twice; see retry of a route")
		case carried.MatchString(name) && !within:
			if name == "server" || name == "location" {
				n.judge(c)
			}
		case harmlessDirectives.MatchString(name) || c.word(1) == "off":
			n.leftOut(c)
		default:
			in.shut = true
			n.note(c.at, "%s: it may deny requests: here 403 for all of %s; see allow, basic_auth, jwt and forward_auth of a route", name, tags.Shorten(strings.Join(in.words, " ")))
		}
	}
}
