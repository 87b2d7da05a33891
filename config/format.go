package config

import (
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"sluice/discovery"
	"sluice/healthcheck"
	"sluice/route"
)

// A format is a rule for a text.
type format struct {
	want string            // what is allowed, for an error
	ok   func(string) bool // reports whether a text, which is not empty, is allowed
}

// formats are the rules for the tag "format".
var formats = map[string]format{
	"name": {
		"a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit",
		regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`).MatchString,
	},
	"listen": {
		`HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535`,
		isListenAddress,
	},
	"peer": {
		`"HOST:PORT" or "HOST:PORT weight=N", an IPv6 address in brackets, the port from 1 to 65535, the weight from 0 to 65535`,
		isPeer,
	},
	"consul": {
		"http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH",
		func(s string) bool { _, ok := consulURL(s, false); return ok },
	},
	"network": {
		"a network such as 10.0.0.0/8 or fd00::/8, or a single IP address",
		func(s string) bool { _, ok := Network(s); return ok },
	},
	"path": {
		"a path that begins with /, in printable ASCII without spaces",
		regexp.MustCompile(`^/[!-~]*$`).MatchString,
	},
	"authority": {
		"HOST or HOST:PORT, an IPv6 address in brackets",
		isAuthority,
	},
	"header": {
		`"NAME: VALUE"`,
		func(s string) bool { _, _, ok := Header(s); return ok },
	},
	"statuses": {
		`numbers from 200 to 599, ranges such as "200-299" or classes such as "2xx", with commas between them`,
		func(s string) bool { _, err := healthcheck.ParseStatuses(s); return err == nil },
	},
	"regexp": {
		"a regular expression in Go's syntax (RE2)",
		func(s string) bool { _, err := regexp.Compile(s); return err == nil },
	},
	"escaped": {
		`a text on one line, with \r, \n, \t, \\ or \xHH for what does not fit in`,
		func(s string) bool { _, ok := Unescape(s); return ok },
	},
	"file": {
		"the path of a file",
		func(s string) bool { return !strings.HasSuffix(s, "/") },
	},
	"meta": {
		`"KEY=VALUE"`,
		func(s string) bool { return strings.Index(s, "=") > 0 },
	},
	"catalog_meta": {
		`"KEY=VALUE", without the character "` + "`" + `"`,
		isCatalogMeta,
	},
	"consul_service": {
		"a name of up to 63 letters, digits or '-', as in DNS",
		consulServiceName.MatchString,
	},
	"consul_meta": {
		`"KEY=VALUE", the key of letters, digits, '_' and '-', not beginning with "consul-" or "sluice-", the value of up to 512 bytes`,
		isConsulMeta,
	},
	"host": {
		"a host name or an IP address, without a port",
		isHost,
	},
	"target": {
		"HOST:PORT, an IPv6 address in brackets, the port from 1 to 65535",
		isTarget,
	},
	"kv_prefix": {
		"a prefix of keys such as certs/web, of up to 128 letters, digits, '.', '_', '-' or '/', without a slash at its start and end",
		regexp.MustCompile(`^[A-Za-z0-9._-]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9._-])?$`).MatchString,
	},
	"http_url": {
		"http://HOST:PORT/PATH or https://HOST:PORT/PATH",
		isHTTPURL,
	},
	"pattern": {
		"a name, or a pattern with * for any letters, ? for one, and [a-z] for one of several",
		isPattern,
	},
	"hash_key": {
		`client_address, path, "header NAME", "cookie NAME" or "query NAME"`,
		func(s string) bool { _, err := route.ParseHashKey(s); return err == nil },
	},
	"cookie": {
		"the name of a cookie: letters, digits, '.', '_' and '-'",
		regexp.MustCompile(`^[A-Za-z0-9._-]+$`).MatchString,
	},
	"cookie_attribute": {
		"printable ASCII without ';', ',' or spaces",
		regexp.MustCompile(`^[!-+\--:<-~]+$`).MatchString,
	},
	"access_log": {
		`"stdout", "stderr", "off" or the path of a file`,
		func(s string) bool { return !strings.HasSuffix(s, "/") },
	},
}

// isAuthority reports whether s is allowed as the Host of a request.
func isAuthority(s string) bool {
	if host, port, err := net.SplitHostPort(s); err == nil {
		return isHost(host) && isPort(port, 1)
	}
	if ip, ok := strings.CutPrefix(s, "["); ok {
		ip, ok = strings.CutSuffix(ip, "]")
		return ok && isHost(ip)
	}
	return isHostName(s)
}

func isListenAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	return isPort(port, 0) && (host == "" || isHost(host))
}

// isTarget reports whether s is an address to connect to.
func isTarget(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && isHost(host) && isPort(port, 1)
}

// isHTTPURL reports whether s is a URL for HTTP or HTTPS without credentials.
func isHTTPURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.Fragment == "" &&
		isHost(u.Hostname()) && (u.Port() == "" || isPort(u.Port(), 1))
}

// isPeer reports whether the static source accepts s and the host is valid.
func isPeer(s string) bool {
	if _, err := discovery.NewStatic("", []string{s}); err != nil {
		return false
	}
	host, port, err := net.SplitHostPort(peerAddress(s))
	return err == nil && isHost(host) && isPort(port, 1)
}

// peerAddress returns the address of a peer, without its weight.
func peerAddress(s string) string {
	address, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return strings.ToLower(address)
}

// isPort reports whether s is a port number, at least least.
func isPort(s string, least uint64) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n >= least && s == strconv.FormatUint(n, 10)
}

// isHost reports whether s is an IP address or a host name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return isHostName(s)
}

// isHostName reports whether s is a host name as in RFC 1123, section 2.1. It also
// allows the underscore, which is common in internal names.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	// The last label of a name is not a number: "1.2.3" and "300.1.1.1" are mistyped
	// addresses.
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.Trim(last, "0123456789") != ""
}

// Network parses a prefix or an IP address.
func Network(s string) (netip.Prefix, bool) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return netip.PrefixFrom(ip, ip.BitLen()), true
	}
	p, err := netip.ParsePrefix(s)
	return p, err == nil
}

// consulURL returns the URL of a Consul agent. It accepts what Consul's own tools accept.
// HOST:PORT without a scheme is a URL for HTTP, or for HTTPS if tls is set.
func consulURL(s string, tls bool) (string, bool) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		return s, strings.HasPrefix(path, "/") && len(path) > 1
	}
	if !strings.Contains(s, "://") {
		scheme := "http://"
		if tls {
			scheme = "https://"
		}
		s = scheme + s
	}
	u, err := url.Parse(s)
	if err != nil || !isHTTPURL(s) || u.RawQuery != "" || u.ForceQuery || strings.HasSuffix(u.Host, ":") {
		return "", false
	}
	return strings.TrimRight(u.String(), "/"), true
}

// isLoopback reports whether a listener on address is reachable only from this machine.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost"
}
