package imported

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"sluice/tags"
)

// Directives of stream that carry over, and others that restrict nobody.
var (
	carriedStreams  = regexp.MustCompile(`^(server|upstream|listen|proxy_(pass|timeout|connect_timeout|protocol)|ssl_certificate(_key)?)$`)
	harmlessStreams = regexp.MustCompile(`^(access_log|error_log|log_format|map.*|preread_.*|proxy_(buffer_size|socket_keepalive)|resolver.*|ssl_(ciphers|preread|protocols|session_.*)|tcp_nodelay)$`)
)

// stream adds the listeners for connections. They have no rules of their own.
func (n *nginx) stream(block *directive) {
	rule := func(d *directive) (name string) {
		for _, c := range d.block {
			if harmlessStreams.MatchString(c.word(0)) {
				n.leftOut(c)
			} else if !carriedStreams.MatchString(c.word(0)) {
				name = c.word(0)
			}
		}
		return name
	}
	all := rule(block)
	for _, d := range block.named["server"] {
		if name := cmp.Or(rule(d), all); name != "" || d.shut || block.shut {
			n.note(d.at, "server: %s: rules for connections: the listener is left out; see sni of a listener", cmp.Or(name, "include"))
			continue
		}
		service := n.service(block, "tcp", d.value("proxy_pass"), d)
		if service == "" {
			n.note(d.at, "server: no server of %q carries over, or it is a variable: the listener is left out; see sni of a listener", d.value("proxy_pass"))
			continue
		}
		for _, l := range d.named["listen"] {
			address := listenAddress(l.word(1))
			keys := tags.Keys{"name": "tcp " + address, "address": address, "protocol": "tcp", "service": service}
			if cert, key := d.value("ssl_certificate"), d.value("ssl_certificate_key"); slices.Contains(l.words, "ssl") && cert != "" {
				keys.Set([]tags.Keys{{"cert": cert, "key": key}}, "tls", "certificates")
			} else if slices.Contains(l.words, "ssl") || slices.Contains(l.words, "udp") || slices.Contains(l.words, "proxy_protocol") {
				n.note(l.at, "listen %s: the listener is left out: see tls.certificates and proxy_protocol of a listener; sluice has no UDP", address)
				continue
			}
			n.add("listeners", "", l.at, keys)
		}
	}
	for _, up := range block.named["upstream"] {
		if !up.used {
			n.note(up.at, "upstream %s: no listener with it carries over: left out", up.word(1))
		}
	}
}

// connections sets the keys of a service for connections.
func (d *directive) connections(keys tags.Keys) {
	if tunnel := d.value("proxy_timeout"); tunnel != "" {
		keys.Set(timeOf(tunnel), "timeouts", "tunnel")
	}
	if connect := d.value("proxy_connect_timeout"); connect != "" {
		keys.Set(timeOf(connect), "timeouts", "connect")
	}
	if strings.EqualFold(d.value("proxy_protocol"), "on") {
		keys["proxy_protocol"] = "v1"
	}
}
