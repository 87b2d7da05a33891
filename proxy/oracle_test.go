package proxy

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The oracle reads messages by the grammar of RFC 9110 and RFC 9112 and by
// sluice's limits, with all bytes at hand and no thought of speed. It shares
// nothing with package http1: where the two disagree, one of them is wrong.

// A wireField is a field line.
type wireField struct{ name, value string }

func (f wireField) is(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return equalASCII(f.name, name) })
}

// A wireMessage is a request or a response.
type wireMessage struct {
	method, target string // of a request; the target in origin form, or "*"
	status         string // of a response: "200 OK"
	http10         bool
	fields         []wireField // an absolute target has taken the place of Host
	length         int         // Content-Length, -1 without
	chunked        bool
	body           string // as far as it arrived
	trailers       []wireField
	complete       bool
	ofPeer         bool // a response, in which some faults are repaired
	odd            bool // there was one: see oddResponses
}

func (m *wireMessage) values(name string) (values []string) {
	for _, f := range m.fields {
		if f.is(name) {
			values = append(values, f.value)
		}
	}
	return values
}

// elements returns the elements of the lists in all fields of that name.
func (m *wireMessage) elements(name string) (elements []string) {
	for _, value := range m.values(name) {
		for element := range strings.SplitSeq(value, ",") {
			if element = strings.Trim(element, " \t"); element != "" {
				elements = append(elements, element)
			}
		}
	}
	return elements
}

func (m *wireMessage) hasOption(option string) bool {
	return slices.ContainsFunc(m.elements("Connection"), func(e string) bool { return equalASCII(e, option) })
}

// last reports whether the connection ends after the message, or nobody knows
// what follows it there.
func (m *wireMessage) last() bool {
	return m.odd || m.hasOption("close") || m.http10 && !m.hasOption("keep-alive") ||
		strings.HasPrefix(m.status, "204") && (m.length > 0 || m.chunked)
}

// A wireEnd is how what one side sent ends.
type wireEnd uint8

const (
	endsClean     wireEnd = iota // after a message
	endsShort                    // within a message
	endsMalformed                // in what must be refused
	endsClosed                   // after a message that says it is the last
)

// sluice's limits.
const (
	oracleHeadBytes          = 16 << 10
	oracleTargetBytes        = 8 << 10
	oracleRequestLineBytes   = oracleTargetBytes + 64
	oracleFields             = 100
	oracleExtensionBytes     = 256
	oracleAllExtensionsBytes = 16 << 10
	oracleTrailerBytes       = 4 << 10
	oracleTrailers           = 16
)

const (
	tokenPattern = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
	valuePattern = "[\t -~\u0080-\u00ff]*"
	// extensionPattern is a name and what follows it, with whole quoted strings.
	extensionPattern = ";[\t ]*[!#$%&'*+\\-.^_`|~0-9A-Za-z]" +
		`(?:[\t !#-:<-~\x{80}-\x{ff}]|"(?:[\t !#-\[\]-~\x{80}-\x{ff}]|\\[\t -~\x{80}-\x{ff}])*")*`
)

var (
	requestLinePattern = regexp.MustCompile("^" + tokenPattern + " [!\"$-~\u0080-\u00ff]+ HTTP/1\\.[01]$")
	statusLinePattern  = regexp.MustCompile("^HTTP/1\\.[01] [1-9][0-9][0-9](?: " + valuePattern + ")?$")
	fieldPattern       = regexp.MustCompile("^" + tokenPattern + ":" + valuePattern + "$")
	absolutePattern    = regexp.MustCompile("^(?i:https?)://([^/?]*)(.*)$")
	namePattern        = regexp.MustCompile("^[-._~%!$&'()*+;=0-9A-Za-z]+(?::[0-9]{0,5})?$")
	ipv6Pattern        = regexp.MustCompile(`^\[[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\](?::[0-9]{0,5})?$`)
	lengthPattern      = regexp.MustCompile("^[0-9]{1,18}$")
	chunkSizePattern   = regexp.MustCompile("^[0-9A-Fa-f]{1,15}(?:" + extensionPattern + ")*$")
)

// matches matches bytes: a byte is a character of the same number.
func matches(pattern *regexp.Regexp, s string) bool {
	characters := make([]rune, len(s))
	for i := range len(s) {
		characters[i] = rune(s[i])
	}
	return pattern.MatchString(string(characters))
}

func isHost(s string) bool {
	return len(s) <= 261 && (matches(namePattern, s) || matches(ipv6Pattern, s))
}

// equalASCII is strings.EqualFold without what Unicode knows of letters.
func equalASCII(a, b string) bool {
	isASCII := strings.IndexFunc(a+b, func(c rune) bool { return c > 0x7f }) < 0
	return a == b || isASCII && strings.EqualFold(a, b)
}

// readRequests reads what a client sent up to the first thing that ends its
// connection. The last request may be incomplete.
func readRequests(s string) (all []*wireMessage, end wireEnd) {
	return readRequestsWithin(s, oracleHeadBytes, oracleFields)
}

// readRequestsWithin is readRequests with other limits of heads: what sluice sends
// on has fields more.
func readRequestsWithin(s string, headBytes, fields int) (all []*wireMessage, end wireEnd) {
	for s != "" {
		var m *wireMessage
		if m, s, end = readRequest(s, headBytes, fields); m == nil {
			return all, end
		}
		if all = append(all, m); end != endsClean {
			return all, end
		}
		if m.last() {
			return all, endsClosed
		}
	}
	return all, endsClean
}

// readRequest reads one request, nil if it has no complete and correct head.
func readRequest(s string, headBytes, fields int) (m *wireMessage, rest string, end wireEnd) {
	after := strings.TrimPrefix(s, "\r\n")
	room := headBytes - (len(s) - len(after))
	switch {
	case strings.HasPrefix(after, "\r\n"):
		return nil, "", endsMalformed
	case after == "":
		return nil, "", endsShort
	}
	lines, rest, end := cutHead(after, room)
	if line := lines[0]; len(line) > oracleRequestLineBytes {
		return nil, "", endsMalformed
	}
	if end == endsShort {
		lines = lines[:len(lines)-1] // the line that is still arriving
	}
	m = &wireMessage{length: -1}
	if len(lines) == 0 || end == endsMalformed {
		return nil, "", end
	}
	if !m.readRequestLine(lines[0]) || !m.readFields(lines[1:], fields) {
		return nil, "", endsMalformed
	}
	for _, expectation := range m.values("Expect") {
		if !equalASCII(expectation, "100-continue") {
			return nil, "", endsMalformed
		}
	}
	hosts := m.values("Host")
	if len(hosts) > 1 || len(hosts) == 1 && !isHost(hosts[0]) {
		return nil, "", endsMalformed
	}
	if end == endsShort {
		return nil, "", end
	}
	if len(hosts) == 0 && !m.http10 || !m.framed() {
		return nil, "", endsMalformed
	}
	if m.method, m.target, _ = cut3(lines[0]); !strings.HasPrefix(m.target, "/") && m.target != "*" {
		parts := absolutePattern.FindStringSubmatch(m.target)
		if m.target = parts[2]; !strings.HasPrefix(m.target, "/") {
			if m.target == "" && m.method == "OPTIONS" {
				m.target = "*"
			} else {
				m.target = "/" + m.target
			}
		}
		m.fields = slices.DeleteFunc(m.fields, func(f wireField) bool { return f.is("Host") })
		m.fields = slices.Insert(m.fields, 0, wireField{"Host", parts[1]})
	}
	rest, end = m.ReadBody(rest, max(m.length, 0))
	return m, rest, end
}

// cutHead cuts the lines of a head off. Where it is not all there, the last
// line is not complete.
func cutHead(s string, room int) (lines []string, rest string, end wireEnd) {
	head, rest, ok := strings.Cut(s, "\r\n\r\n")
	if ok && len(head)+4 <= room {
		return strings.Split(head, "\r\n"), rest, endsClean
	}
	if len(s) >= room {
		return []string{""}, "", endsMalformed
	}
	// A line that is complete may be malformed all the same.
	lines = strings.Split(s, "\n")
	for i, line := range lines[:len(lines)-1] {
		if lines[i] = strings.TrimSuffix(line, "\r"); lines[i] == line {
			return lines, "", endsMalformed
		}
	}
	last := len(lines) - 1
	lines[last] = strings.TrimSuffix(lines[last], "\r")
	return lines, "", endsShort
}

func cut3(line string) (a, b, c string) {
	a, b, _ = strings.Cut(line, " ")
	b, c, _ = strings.Cut(b, " ")
	return a, b, c
}

func (m *wireMessage) readRequestLine(line string) bool {
	method, target, version := cut3(line)
	m.http10 = version == "HTTP/1.0"
	if !matches(requestLinePattern, line) || len(target) > oracleTargetBytes || method == "CONNECT" || method == "TRACE" || method == "PRI" {
		return false
	}
	parts := absolutePattern.FindStringSubmatch(target)
	return strings.HasPrefix(target, "/") || target == "*" && method == "OPTIONS" || parts != nil && isHost(parts[1])
}

func (m *wireMessage) readFields(lines []string, most int) bool {
	if len(lines) > most {
		return false
	}
	for _, line := range lines {
		if !matches(fieldPattern, line) {
			return false
		}
		name, value, _ := strings.Cut(line, ":")
		f := wireField{name, strings.Trim(value, " \t")}
		m.fields = append(m.fields, f)
		switch {
		case f.is("Content-Length"):
			if m.length >= 0 || !matches(lengthPattern, f.value) {
				return false
			}
			m.length, _ = strconv.Atoi(f.value)
		case f.is("Transfer-Encoding"):
			if m.chunked || !equalASCII(f.value, "chunked") {
				return false
			}
			m.chunked = true
		}
	}
	return len(m.elements("Connection")) <= oracleFields
}

// framed reports whether the length of the body is said in one way.
func (m *wireMessage) framed() bool {
	return !m.chunked || m.length < 0 && !m.http10
}

// ReadBody reads a chunked body, or one of the given length.
func (m *wireMessage) ReadBody(s string, length int) (rest string, end wireEnd) {
	if m.chunked {
		return m.readChunks(s)
	}
	m.body = s[:min(length, len(s))]
	if m.complete = len(m.body) == length; !m.complete {
		return "", endsShort
	}
	return s[length:], endsClean
}

func (m *wireMessage) readChunks(s string) (rest string, end wireEnd) {
	extensions := 0
	for {
		line, after, ok := strings.Cut(s, "\n")
		if !ok {
			return "", endsShort // or malformed: both mean that it is not complete
		}
		line, ok = strings.CutSuffix(line, "\r")
		size, others, isSize := m.cutSize(line)
		extensions += others
		if !ok || !isSize || others > 0 && extensions > oracleAllExtensionsBytes+len(m.body)/16 {
			return "", endsMalformed
		}
		if size == 0 {
			return m.readTrailers(after)
		}
		m.body += after[:min(int(size), len(after))]
		if int(size) > len(after) {
			return "", endsShort
		}
		after = after[size:]
		if s, ok = strings.CutPrefix(after, "\r\n"); !ok {
			if strings.HasPrefix("\r\n", after) {
				return "", endsShort
			}
			return "", endsMalformed
		}
	}
}

func (m *wireMessage) readTrailers(s string) (rest string, end wireEnd) {
	section, rest, ok := strings.Cut("\r\n"+s, "\r\n\r\n")
	if len(section) > oracleTrailerBytes {
		return "", endsMalformed
	}
	if !ok {
		return "", endsShort
	}
	lines := strings.Split(section, "\r\n")[1:]
	for _, line := range lines {
		if !matches(fieldPattern, line) {
			return "", endsMalformed
		}
		name, value, _ := strings.Cut(line, ":")
		m.trailers = append(m.trailers, wireField{name, strings.Trim(value, " \t")})
	}
	if m.complete = len(lines) <= oracleTrailers; !m.complete {
		return "", endsMalformed
	}
	return rest, endsClean
}

// readResponses reads what a peer sent for one request of the given method and
// then, if closed, closed the connection: interim responses and a final one. Nothing may be asked
// on the connection after a final one that is odd, or follows one that is.
func readResponses(s, method string, closed bool) (all []*wireMessage, rest string, end wireEnd) {
	for {
		m := &wireMessage{length: -1, ofPeer: true}
		lines, after, end := m.cutResponse(s)
		if end != endsClean {
			return all, "", end
		}
		if m.http10 = strings.HasPrefix(lines[0], "HTTP/1.0"); !matches(statusLinePattern, lines[0]) || !m.readFields(lines[1:], oracleFields) || !m.framed() {
			return all, "", endsMalformed
		}
		m.odd = m.odd || len(all) > 0 && all[len(all)-1].odd
		all = append(all, m)
		_, m.status, _ = strings.Cut(lines[0], " ")
		switch code := m.status[:3]; {
		case code == "101": // was not asked for
			return all[:len(all)-1], "", endsMalformed
		case code[0] == '1':
			s = after
			continue
		case method == "HEAD", code == "204", code == "304":
			m.complete = true
			return all, after, endsClean
		case !m.chunked && m.length < 0:
			m.body, m.complete = after, closed
			return all, "", endsClosed
		}
		rest, end = m.ReadBody(after, max(m.length, 0))
		return all, rest, end
	}
}

// endToEnd returns the fields that are to reach the other side. All that sluice
// writes itself, or may leave out, is not among them.
func (m *wireMessage) endToEnd(isRequest bool) (fields []wireField) {
	for _, f := range m.fields {
		switch {
		case f.is("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Transfer-Encoding", "Upgrade", "Trailer"):
		case isRequest && (f.is("Expect", "HTTP2-Settings", "Proxy-Authorization", "Max-Forwards") || f.isReserved()):
		case !isRequest && (strings.HasPrefix(strings.ToLower(f.name), "x-sluice-") || f.is("X-Forwarded-Client-Cert", "HTTP2-Settings", "Proxy-Authorization") || f.imitates()):
		case !isRequest && f.is("Content-Length"): // compared as a number
		case slices.ContainsFunc(m.elements("Connection"), func(option string) bool { return f.is(option) }) && !slices.ContainsFunc(neverNominated, func(name string) bool { return f.is(name) }) && !reservedNames.MatchString(f.name):
		default:
			fields = append(fields, f)
		}
	}
	return fields
}

// reservedNames are those in which proxies tell about their clients and sluice about itself,
// with hyphens for all marks.
var reservedNames = regexp.MustCompile("^(?i:forwarded|x-forwarded(-.*)?|x-sluice-.*|x-original-.*|x-ssl-.*|ssl-client-.*|x-auth-request-.*|x-client-cert.*|client-cert(-chain)?|client-ip|" +
	"x-real-ip|cf-connecting-ip(v6)?|fastly-client-ip|true-client-ip|front-end-https|proxy|remote-(addr|user)|x-remote-(addr|ip|user)|x-authenticated-user|" +
	"x-(cluster-)?client-ip|x-envoy-(external-address|internal)|x-rewrite-url|x-(url-)?scheme)$")

// messageNames are further names with hyphens that no other name may imitate.
var messageNames = regexp.MustCompile("^(?i:content-length|grpc-timeout|http2-settings|keep-alive|max-forwards|proxy-(authorization|connection)|sec-websocket-key|strict-transport-security|transfer-encoding)$")

var marks = regexp.MustCompile("[^A-Za-z0-9-]")

// isReserved reports whether a client that is not trusted may not send the field.
func (f wireField) isReserved() bool {
	return reservedNames.MatchString(f.name) || strings.Contains(f.name, "_") || f.imitates()
}

// imitates reports whether the name is another one for those who read marks as hyphens.
func (f wireField) imitates() bool {
	name := marks.ReplaceAllString(f.name, "-")
	return name != f.name && (reservedNames.MatchString(name) || messageNames.MatchString(name))
}

// isForbiddenTrailer reports whether the trailer could pose as a field of the
// head of a request or a response.
func (f wireField) isForbiddenTrailer(isRequest bool) bool {
	return reservedNames.MatchString(f.name) || f.imitates() || isRequest && f.isReserved() || f.is("Content-Length", "Transfer-Encoding", "Host", "Connection", "Trailer", "TE",
		"Set-Cookie", "Authorization", "Content-Type", "X-Forwarded-For", "Forwarded", "X-Real-IP")
}

// isHarmlessTrailer reports whether the trailer is passed on for certain.
func (f wireField) isHarmlessTrailer() bool {
	return !strings.Contains(f.name, "_") && len(f.name) == len("X-A") && equalASCII(f.name[:2], "X-")
}

// neverNominated are fields that a Connection field cannot make end at sluice.
var neverNominated = []string{
	"Accept", "Content-Length", "Cookie", "Host", "Max-Forwards", "Proxy-Authenticate", "Referer", "User-Agent", "Via",
	"Expect", "Forwarded", "HTTP2-Settings", "Proxy-Authorization", "X-Sluice-Attempts",
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Real-IP", "X-Request-Id", "Traceparent", "Sec-WebSocket-Key",
}
