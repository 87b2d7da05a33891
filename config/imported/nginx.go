package imported

import (
	"errors"
	"path"
	"regexp"
	"strings"
)

// nginx is a configuration of nginx.
type nginx struct {
	*draft
	files    []File
	known    map[string]bool // names of files that are read
	room     int             // how many words there may be further
	http     *directive
	services map[string]string // names, by how they are asked; empty: it has no servers
	ports    map[string]*port  // by address
	blind    bool              // who the client is cannot be said as nginx says it
	left     int               // bytes of further routes and what they name
}

func readNginx(d *draft, files []File) error {
	n := &nginx{
		draft: d, files: files, known: make(map[string]bool), room: maxValues, http: &directive{line: line{[]string{"http"}, d.top}},
		services: make(map[string]string), ports: make(map[string]*port), left: 8 << 20,
	}
	if err := n.read(); err != nil {
		return err
	}
	n.judge(n.http)
	return n.serve()
}

// read reads the files into http, and notes what is outside of it. A file that is included by one
// before it is only there. What has no block http is in http too.
func (n *nginx) read() error {
	for _, f := range n.files {
		root := new(directive)
		if n.known[f.Name] {
			continue
		}
		if err := n.parse(f, root, 0); err != nil {
			return err
		}
		blocks := []*directive{root}
		if root.named["http"] != nil || root.named["stream"] != nil || root.named["events"] != nil {
			blocks = root.named["http"]
			for _, c := range root.block {
				if c.word(0) != "http" {
					n.leftOut(c)
					for _, below := range c.block {
						n.leftOut(below)
					}
				}
			}
		}
		for _, b := range blocks {
			n.http.shut = n.http.shut || b.shut
			for _, c := range b.block {
				n.http.add(c)
			}
		}
	}
	if len(n.http.block) == 0 {
		return errors.New("no directives of http")
	}
	return nil
}

// include adds the directives of the files that an include of a block names. What may deny is in
// one that is not given.
func (n *nginx) include(d, in *directive, depth int) error {
	name, given := d.word(1), false
	for _, f := range n.files {
		if f.Name != d.at.File && names(name, f.Name) {
			given = true
			if err := n.parse(f, in, depth); err != nil {
				return err
			}
		}
	}
	several := strings.ContainsAny(name, "*?[") && (in.in == nil || in.word(0) == "http")
	in.shut = in.shut || !given && !several && !withoutRules.MatchString(name)
	switch {
	case given:
	case in.shut:
		n.note(d.at, "include %s: give it to sluice import too: until then what it is in denies every request", name)
	default:
		n.note(d.at, "include %s: if it has more than is here, give it to sluice import too", name)
	}
	return nil
}

// names reports whether an include names a file, by as many of its last folders as are known.
func names(include, file string) bool {
	pattern, name := strings.Split(include, "/"), strings.Split(file, "/")
	n := min(len(pattern), len(name))
	same, _ := path.Match(strings.Join(pattern[len(pattern)-n:], "/"), strings.Join(name[len(name)-n:], "/"))
	return same
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
	forwarded := strings.EqualFold(n.http.value("real_ip_header"), "X-Forwarded-For")
	for _, c := range in.block {
		switch name := c.word(0); {
		case clientTimeouts[name] != "" && in == n.http:
			n.set(c.at, timeOf(c.word(1)), "client", "timeouts", clientTimeouts[name])
		case name == "set_real_ip_from" && in == n.http && forwarded:
			proxies, _ := n.sections.Get("client", "trusted_proxies").([]string)
			n.set(c.at, append(proxies, c.word(1)), "client", "trusted_proxies")
		case strings.Contains(name, "real_ip") && (in != n.http || !forwarded):
			n.blind = true
			n.note(c.at, "%s: see client.trusted_proxies: until then routes with allow or deny deny every request", name)
		case name == "location" && in.word(0) == "location":
			in.shut = true
			n.note(c.at, "location: within another one: here 403 for all of %s; write it beside that", in)
		case name == "server" || name == "location":
			n.judge(c)
		case carried.MatchString(name):
		case harmlessDirectives.MatchString(name) || c.word(1) == "off":
			n.leftOut(c)
		default:
			in.close(n.draft, c)
		}
	}
}

// close closes the block for a directive that may deny.
func (d *directive) close(to *draft, c *directive) {
	d.shut = true
	to.note(c.at, "%s: it may deny requests: here 403 for all of %s; see allow, basic_auth, client_certificate, jwt, forward_auth and when of a route", c.word(0), d)
}

// Directives of http, as far as nginx has them itself or its usual modules do.
var (
	// carried are those that carry over, or say what sluice does by itself.
	carried = regexp.MustCompile(`^(upstream|listen|server_name|return|rewrite|if|break|internal|proxy_pass|proxy_set_header|` +
		`add_header|proxy_hide_header|allow|deny|satisfy|auth_basic(_user_file)?|client_max_body_size|proxy_(connect|read)_timeout|` +
		`limit_req(_zone)?|gzip(_vary|_proxied)?|default_type|real_ip_[a-z]+|types|` +
		`ssl_(certificate(_key)?|protocols)|proxy_ssl_(verify|server_name)|` +
		`proxy_http_version|proxy_(request_)?buffering|http[23]|sendfile|tcp_no(push|delay))$`)
	// harmlessDirectives are others that restrict nobody.
	harmlessDirectives = regexp.MustCompile(`^(absolute_redirect|access_log|add_trailer|a?io|alias|ancient_browser.*|autoindex.*|brotli.*|charset.*|` +
		`chunked_transfer_encoding|client_(body|header)_.*|connection_pool_size|directio.*|empty_gif|error_(log|page)|etag|expires|fastcgi_.*|geo|geoip.*|` +
		`grpc_.*|gunzip.*|gzip.*|(body|header)_filter_by_lua.*|http[23]_.*|if_modified_since|ignore_invalid_headers|image_filter.*|index|init_.*|js_(import|path|set|var)|` +
		`keepalive_.*|large_client_header_buffers|limit_(conn|rate|req).*|lingering_.*|log_.*|lua_.*|map.*|max_ranges|memcached_.*|merge_slashes|mirror.*|` +
		`more_.*|msie_.*|open_.*|opentracing.*|otel_.*|output_buffers|port_in_redirect|postpone_output|proxy_.*|quic_.*|read_ahead|recursive_error_pages|` +
		`request_pool_size|reset_timedout_connection|resolver.*|rewrite_log|root|scgi_.*|send_.*|set|sendfile.*|server_(name_in|names_hash|tokens).*|` +
		`split_clients|ssi.*|ssl_(buffer_size|ciphers|client_certificate|conf_command|crl|dhparam|early_data|ecdh_curve|password_file|prefer_.*|session_.*|stapling.*|` +
		`trusted_certificate|verify_depth)|status_zone|stub_status|sub_filter.*|subrequest_.*|tcp_.*|try_files|types.*|underscores_in_headers|` +
		`uninitialized_variable_warn|userid.*|uwsgi_.*|variables_.*|vhost_traffic_status.*|xslt.*)$`)
	// instead are keys that do what a directive does.
	instead = map[string]string{
		"access_log": "see access_log", "log_format": "see access_log.format", "error_log": "see log", "error_page": "see error_pages of a route",
		"limit_conn": "see client.limits.connections_per_address", "limit_conn_zone": "see client.limits.connections_per_address",
		"resolver":           "sluice asks Consul itself; see dns of a service",
		"proxy_send_timeout": "see timeouts of a route", "proxy_next_upstream_timeout": "see retry.per_try_timeout of a route",
		"proxy_next_upstream": "sluice repeats what got no answer, and what may be sent twice; see retry of a route", "proxy_next_upstream_tries": "see retry.attempts of a route",
		"gzip_types": "see compress.types of a route", "gzip_min_length": "see compress.min_length of a route", "hash": "see balance.hash of a service",
		"ssl_ciphers": "see tls.profile of the listener", "root": "sluice serves no files", "alias": "sluice serves no files", "try_files": "sluice serves no files",
		"map": "its variable has no counterpart; see when of a route", "geo": "its variable has no counterpart; see when of a route",
		"split_clients": "its variable has no counterpart; see split of a service", "ssl_session_tickets": "see tls.ticket_keys of the listener",
		"proxy_cache": "sluice has no cache", "fastcgi_pass": "sluice forwards HTTP only", "uwsgi_pass": "sluice forwards HTTP only",
		"grpc_pass": "see upstream.protocol of a service", "ssl_client_certificate": "see tls.client_ca of the listener", "ssl_crl": "see tls.client_crl of the listener",
		"proxy_ssl_name": "see upstream.tls.server_name of a service", "proxy_ssl_trusted_certificate": "see upstream.tls.ca of a service",
		"stream": "see protocol, service and sni of a listener", "set": "its variable has no counterpart; see when of a route",
	}
	// clientTimeouts are keys of client.timeouts.
	clientTimeouts = map[string]string{
		"keepalive_timeout": "idle", "client_header_timeout": "head", "client_body_timeout": "body", "send_timeout": "write",
	}
	// withoutRules are files that restrict nobody, as they come with nginx and Certbot.
	withoutRules = regexp.MustCompile(`(^|/)(mime\.types|(fastcgi|proxy|scgi|uwsgi)_params|options-ssl-nginx\.conf)$`)
)

// socketOptions are options of listen that sluice needs not.
var socketOptions = regexp.MustCompile(`^(http2|reuseport|bind|deferred|(ipv6only|backlog|rcvbuf|sndbuf|fastopen|so_keepalive|setfib)=.*)$`)

// byItself are headers that sluice sends too, with their values.
var byItself = regexp.MustCompile(`(?i)^(connection:.*|upgrade:.*|x-real-ip:\$remote_addr|x-forwarded-for:\$(proxy_add_x_forwarded_for|remote_addr)|` +
	`x-forwarded-proto:\$scheme|x-forwarded-host:\$(http_)?host|host:\$(http_)?host)$`)
