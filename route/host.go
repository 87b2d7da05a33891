package route

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// maxHostLen is the longest host that a route can match (RFC 1035, section 2.3.4).
const maxHostLen = 253

type hostKind uint8

// From the most to the least specific.
const (
	hostExact hostKind = iota
	hostWildcard
	hostRegexp
	hostAny
)

// hostPattern is the parsed host of a route.
type hostPattern struct {
	kind hostKind
	// name is in lower case. Of a wildcard it is the part after the star,
	// ".example.com", of hostRegexp the expression.
	name string
	// suffix is, of hostRegexp, what every host ends with that the expression matches,
	// from a dot on; it may be empty.
	suffix string
}

func (h hostPattern) String() string {
	switch h.kind {
	case hostWildcard:
		return "*" + h.name
	case hostRegexp:
		return "~" + h.name
	}
	return h.name
}

// regexpHost returns the pattern of a valid regular expression.
func regexpHost(expression string) hostPattern {
	h := hostPattern{kind: hostRegexp, name: expression}
	_, literal := literalEnds(expression)
	if i := strings.IndexByte(literal, '.'); i >= 0 {
		h.suffix = literal[i:]
	}
	return h
}

// compare orders patterns by specificity: exact hosts, which are equal, wildcards by their
// labels, regular expressions by their length, any host.
func (h hostPattern) compare(o hostPattern) int {
	if c := cmp.Compare(h.kind, o.kind); c != 0 {
		return c
	}
	switch h.kind {
	case hostWildcard:
		return cmp.Compare(strings.Count(o.name, "."), strings.Count(h.name, "."))
	case hostRegexp:
		return cmp.Compare(len(o.name), len(h.name))
	}
	return 0
}

func parseHost(s string) (hostPattern, error) {
	switch {
	case s == "":
		return hostPattern{kind: hostAny}, nil
	case s == "*":
		return hostPattern{}, errors.New("leave the host empty to match any host")
	case strings.HasPrefix(s, "["):
		return parseIPv6Host(s)
	case strings.Count(s, ":") > 1:
		return hostPattern{}, errors.New("an IPv6 address must be in brackets")
	case strings.Contains(s, ":"):
		return hostPattern{}, errors.New("must have no port and no scheme: a route matches the host on every port")
	}
	h := hostPattern{name: strings.ToLower(strings.TrimSuffix(s, "."))}
	if rest, ok := strings.CutPrefix(h.name, "*"); ok {
		if !strings.HasPrefix(rest, ".") {
			return hostPattern{}, errors.New(`a wildcard is "*." and a domain, as in "*.example.com"`)
		}
		h.kind, h.name = hostWildcard, rest
	}
	if err := checkDomain(strings.TrimPrefix(h.name, ".")); err != nil {
		return hostPattern{}, err
	}
	return h, nil
}

func parseIPv6Host(s string) (hostPattern, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return hostPattern{}, errors.New("must be an IPv6 address in brackets without a port")
	}
	ip, err := netip.ParseAddr(inner)
	if err != nil || !ip.Is6() || ip.Zone() != "" {
		return hostPattern{}, fmt.Errorf("%q is not an IPv6 address", inner)
	}
	return hostPattern{name: "[" + ip.String() + "]"}, nil
}

// checkDomain accepts labels of letters, digits, hyphens and underscores.
func checkDomain(s string) error {
	if len(s) > maxHostLen {
		return fmt.Errorf("has %d characters, the limit is %d", len(s), maxHostLen)
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return errors.New("has an empty label")
		case len(label) > 63:
			return fmt.Errorf("has a label of %d characters, the limit is 63", len(label))
		}
		for _, c := range label {
			switch {
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			case c == '*':
				return errors.New(`a star must be the first label, as in "*.example.com"`)
			case c > 0x7f:
				return errors.New(`must be written in ASCII, as clients send it ("xn--…")`)
			default:
				return fmt.Errorf("contains %q", c)
			}
		}
	}
	return nil
}

// foldHost appends host to dst in lower case, without port and final dot. It returns
// nil if the result is empty or exceeds dst's capacity.
func foldHost(dst, host []byte) []byte {
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}
	if n := len(host); n > 0 && host[n-1] == '.' {
		host = host[:n-1]
	}
	if len(host) == 0 || len(host) > cap(dst) {
		return nil
	}
	for _, c := range host {
		dst = append(dst, lowerOctet(c))
	}
	return dst
}
