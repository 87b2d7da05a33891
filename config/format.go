package config

import (
	"errors"
	"mime"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"sluice/certificates"
	"sluice/config/decoding"
	"sluice/discovery"
	"sluice/healthcheck/statuses"
	"sluice/proxy/accesslog"
	"sluice/route"
	"sluice/route/compression"
	"sluice/tags/traefik"
)

// plain returns the rule for the texts that ok accepts.
func plain(want string, ok func(string) bool) decoding.Format {
	return decoding.Format{Want: want, OK: ok}
}

// typed returns the rule for the texts that parse accepts.
func typed[V any](want string, parse func(string) (V, error)) decoding.Format {
	return decoding.Format{
		Want:  want,
		OK:    func(s string) bool { _, err := parse(s); return err == nil },
		Parse: func(s string) (any, error) { return parse(s) },
	}
}

// known returns the parser of the words that parse knows.
func known[V any](parse func(string) (V, bool)) func(string) (V, error) {
	return func(s string) (v V, err error) {
		v, ok := parse(s)
		if !ok {
			err = errors.New("unknown")
		}
		return v, err
	}
}

// telling returns f with errors that say what is wrong with the text.
func telling(f decoding.Format) decoding.Format {
	f.Tells = true
	return f
}

var isPath = regexp.MustCompile(`^/[!-~]*$`).MatchString

var isName = upTo(128, `^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// upTo returns whether a text has at most that many bytes and matches pattern. A pattern that
// counts, such as "{0,127}", is compiled to as many copies.
func upTo(most int, pattern string) func(string) bool {
	re := regexp.MustCompile(pattern)
	return func(s string) bool { return len(s) <= most && re.MatchString(s) }
}

// isQuotable reports whether a text can be between quotes in a field.
var isQuotable = regexp.MustCompile(`^[ !#-\[\]-~]+$`).MatchString

// formats are the rules for the tag "format".
var formats = map[string]decoding.Format{
	"name": plain("a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit", isName),
	"listen": typed(`HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535; or unix:/PATH`,
		parseEndpoint),
	"file_mode": typed("permissions in octal, such as 0660", parseMode),
	"peer":      typed(`"HOST:PORT" or "HOST:PORT weight=N", an IPv6 address in brackets, the port from 1 to 65535, the weight from 0 to 65535; unix:/PATH instead of HOST:PORT`, parsePeer),
	"log_level": typed("", zerolog.ParseLevel),
	"consul":    plain("http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH", func(s string) bool { _, ok := consulURL(s, false); return ok }),
	"network":   typed("a network such as 10.0.0.0/8 or fd00::/8, or a single IP address", parseNetwork),
	"proxy":     typed("a network such as 10.0.0.0/8 or fd00::/8, a single IP address, or unix: for who uses a unix socket", parseProxy),
	"path":      plain("a path that begins with /, in printable ASCII without spaces", isPath),
	"check_path": plain("a path that begins with /, in printable ASCII without spaces, with two hexadecimal digits after each %", func(s string) bool {
		_, err := url.ParseRequestURI(s)
		return err == nil && isPath(s)
	}),
	"authority":    plain("HOST or HOST:PORT, an IPv6 address in brackets", isAuthority),
	"method":       plain("a method in upper case, such as GET", regexp.MustCompile(`^[A-Z][A-Z0-9_-]*$`).MatchString),
	"token":        plain("a name without spaces, such as X-Canary", regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$").MatchString),
	"content_type": plain("a media type such as text/html; charset=utf-8", isContentType),
	"media_type":   typed("a media type such as text/html, or a pattern such as text/*, application/*+json or */*", known(compression.ParseType)),
	"encoding":     typed("", known(compression.ParseEncoding)),
	"level":        typed("", known(compression.ParseLevel)),
	"tls_version":  typed("", known(certificates.ParseVersion)),
	"tls_suite":    typed("one of "+strings.Join(certificates.SuiteNames, ", "), known(certificates.ParseSuite)),
	"tls_curve":    typed("one of "+strings.Join(certificates.CurveNames, ", "), known(certificates.ParseCurve)),
	"certificate":  typed("any, cn=NAME, dns=NAME, uri=URI, or sha256= and 64 hexadecimal digits", known(route.ParseCertificateName)),
	"parameter":    plain("a name, decoded, such as version", func(s string) bool { return s != "" }),
	"header":       typed(`"NAME: VALUE"`, known(parseHeader)),
	"statuses":     typed(`numbers from 200 to 599, ranges such as "200-299" or classes such as "2xx", with commas between them`, statuses.Parse),
	"regexp":       typed("a regular expression in Go's syntax (RE2)", route.CompileRegexp),
	"escaped":      typed(`a text on one line, with \r, \n, \t, \\ or \xHH for what does not fit in`, parseEscaped),
	"file":         plain("the path of a file", func(s string) bool { return !strings.HasSuffix(s, "/") }),
	"meta":         typed(`"KEY=VALUE"`, known(parseMeta)),
	"tag_prefix":   plain("printable text without blanks", regexp.MustCompile(`^[!-~]+$`).MatchString),
	"traefik_rule": typed("text with places such as {{ .Name }}, {{ normalize .Name }} and {{ index .Labels \"TAG\" }}", traefik.ParseDefaultRule),
	"claimed_host": plain(`a host, a wildcard such as *.example.com, or "*"; {service} stands for the name of the service`, isClaimedHost),
	"service_host": plain("a host with {service} for the name of the service, such as {service}.apps.example.com", isServiceHost),
	"catalog_meta": typed(`"KEY=VALUE", without the character "`+"`"+`"`, known(func(s string) ([2]string, bool) {
		meta, ok := parseMeta(s)
		return meta, ok && !strings.Contains(s, "`") // it is quoted in a filter of Consul
	})),
	"consul_service":   plain("a name of up to 63 letters, digits or '-', as in DNS", isConsulService),
	"consul_meta":      typed(`"KEY=VALUE", the key of letters, digits, '_' and '-', not beginning with "consul-" or "sluice-", the value of up to 512 bytes`, parseConsulMeta),
	"host":             plain("a host name or an IP address, without a port", discovery.IsHost),
	"certificate_name": plain("a host name, or with acme.dns a wildcard such as *.example.com", isCertificateName),
	"routed_host":      plain(`a host name, a wildcard such as *.example.com, or "*"`, isRoutedHost),
	"target":           plain("HOST:PORT, an IPv6 address in brackets, the port from 1 to 65535", isTarget),
	"kv_prefix": plain("a prefix of keys such as certs/web, of up to 128 letters, digits, '.', '_', '-' or '/', without a slash at its start and end",
		upTo(128, `^[A-Za-z0-9._-]([A-Za-z0-9._/-]*[A-Za-z0-9._-])?$`)),
	"etcd":        plain("http://HOST:PORT or https://HOST:PORT", isEtcdURL),
	"etcd_prefix": plain("the start of keys, such as /nodes/, of up to 512 bytes", func(s string) bool { return len(s) <= 512 }),
	"etcd_key":    plain("a key, of up to 512 bytes, that does not end with a slash", func(s string) bool { return len(s) <= 512 && !strings.HasSuffix(s, "/") }),
	"dns_name":    plain("a name such as _star._tcp.example.com, of up to 253 letters, digits, '-', '_' or '.'", isDNSName),
	"dns_server":  plain("HOST:PORT, or HOST for port 53, an IPv6 address in brackets", isDNSServer),
	"consul_key":  plain("a key, of up to 512 bytes, without a slash at its start and end", isConsulKey),
	"kv_key": plain("a key such as sluice/edge.yaml, of up to 128 letters, digits, '.', '_', '-' or '/'",
		upTo(128, `^[A-Za-z0-9._-]([A-Za-z0-9._/-]*[A-Za-z0-9._-])?$`)),
	"kv_tree": plain("a prefix of keys such as sluice/, of up to 128 letters, digits, '.', '_', '-' or '/'",
		upTo(128, `^[A-Za-z0-9._-]([A-Za-z0-9._/-]*[A-Za-z0-9._-])?/?$`)),
	"files":    plain("the path of a file, or of files of one directory with * for any letters, such as routes.d/*.yaml", isFiles),
	"http_url": typed("http://HOST:PORT/PATH or https://HOST:PORT/PATH", parseURL),
	"pattern":  plain("a name, or a pattern with * for any letters, ? for one, and [a-z] for one of several", isPattern),
	"hash_key": typed(`client_address, path, "header NAME", "cookie NAME" or "query NAME"`, route.ParseHashKey),
	"split_key": typed(`cookie, "header NAME", client_address or none`, func(s string) (p Portion, err error) {
		p.Key, err = route.ParseSplitKey(s)
		return p, err
	}),
	"share": typed(wantShare, func(s string) (p Portion, err error) {
		p.Share, err = ParseShare(s)
		return p, err
	}),
	"group":            typed("a text on one line", func(string) (Portion, error) { return Portion{}, nil }),
	"split":            plain("the name of a group with its share from 0% to 100%, or key, or fallback", isName),
	"services":         plain("the name of a service with its share from 0% to 100%, or key", isName),
	"text":             plain("a text on one line", func(string) bool { return true }),
	"quotable":         plain(`printable ASCII without '"' and '\'`, isQuotable),
	"rate_key":         typed(`client_address, "header NAME", "claim NAME", "answer NAME" or route`, parseRateKey),
	"token_place":      typed(`bearer, "header NAME" or "cookie NAME"`, route.ParseTokenPlace),
	"cookie":           plain("the name of a cookie: letters, digits, '.', '_' and '-'", regexp.MustCompile(`^[A-Za-z0-9._-]+$`).MatchString),
	"cookie_attribute": plain("printable ASCII without ';', ',' or spaces", regexp.MustCompile(`^[!-+\--:<-~]+$`).MatchString),
	"log_format":       telling(typed(`json, combined, or a template such as '$client "$method $target" $status'`, accesslog.ParseFormat)),
	"access_log":       plain(`"stdout", "stderr", "off" or the path of a file`, func(s string) bool { return !strings.HasSuffix(s, "/") }),
}

// isContentType reports whether s is allowed as the Content-Type of an answer.
func isContentType(s string) bool {
	mediaType, _, err := mime.ParseMediaType(s)
	return err == nil && strings.Count(mediaType, "/") == 1 && !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// isAuthority reports whether s is allowed as the Host of a request.
func isAuthority(s string) bool {
	if host, port, err := net.SplitHostPort(s); err == nil {
		return discovery.IsHost(host) && isPort(port, 1)
	}
	if ip, ok := strings.CutPrefix(s, "["); ok {
		ip, ok = strings.CutSuffix(ip, "]")
		return ok && discovery.IsHost(ip)
	}
	return discovery.IsHostName(s)
}

// isTarget reports whether s is an address to connect to.
func isTarget(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && discovery.IsHost(host) && isPort(port, 1)
}

// parseURL parses a URL for HTTP or HTTPS without credentials.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil && !((u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.Fragment == "" &&
		discovery.IsHost(u.Hostname()) && (u.Port() == "" || isPort(u.Port(), 1))) {
		err = errors.New("not a URL for HTTP")
	}
	return u, err
}

// parsePeer parses a peer of the static source whose host is valid.
func parsePeer(s string) (discovery.Instance, error) {
	i, err := discovery.ParsePeer(s)
	address, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	if err == nil && !isSocket(address) && !isTarget(address) {
		err = errors.New("not an address to connect to")
	}
	return i, err
}

// isPort reports whether s is a port number, at least least.
func isPort(s string, least uint64) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n >= least && s == strconv.FormatUint(n, 10)
}

// parseNetwork parses a prefix or an IP address.
func parseNetwork(s string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}

// parseProxy is parseNetwork for who may speak for clients. "unix:" is the zero prefix.
func parseProxy(s string) (netip.Prefix, error) {
	if s == "unix:" {
		return netip.Prefix{}, nil
	}
	return parseNetwork(s)
}

// parseMeta splits KEY=VALUE.
func parseMeta(s string) (meta [2]string, ok bool) {
	key, value, ok := strings.Cut(s, "=")
	return [2]string{key, value}, ok && key != ""
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
	u, err := parseURL(s)
	if err != nil || u.RawQuery != "" || u.ForceQuery || strings.HasSuffix(u.Host, ":") {
		return "", false
	}
	return strings.TrimRight(u.String(), "/"), true
}

// isLoopback reports whether a listener on host is reachable only from this machine.
func isLoopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	return host == "localhost"
}
