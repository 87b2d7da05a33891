package proxy

import (
	"regexp"
	"slices"
	"strings"

	"sluice/proxy/http1"
)

// The oracle reads messages with all bytes at hand, by package http1: the tests of that compare it with
// other implementations, with each octet of a message changed. What is forwarded in which parts, what
// becomes of fields, and what follows on a connection is the oracle's own.

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
	oracleHeadBytes    = 16 << 10
	oracleTargetBytes  = 8 << 10
	oracleFields       = 100
	oracleTrailerBytes = 4 << 10
)

// equalASCII is strings.EqualFold without what Unicode knows of letters.
func equalASCII(a, b string) bool {
	isASCII := strings.IndexFunc(a+b, func(c rune) bool { return c > 0x7f }) < 0
	return a == b || isASCII && strings.EqualFold(a, b)
}

// newWireMessage returns a message with the fields of a head that has been scanned.
func newWireMessage(h *http1.Head, b []byte) *wireMessage {
	m := &wireMessage{length: int(h.ContentLength), chunked: h.Chunked}
	for _, f := range h.Fields() {
		m.fields = append(m.fields, wireField{string(f.FieldName(b)), string(f.Value(b))})
	}
	return m
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
	var h http1.RequestHead
	h.Reset(oracleTargetBytes, fields)
	b := []byte(s[:min(len(s), headBytes)])
	n, err := h.Scan(b)
	switch {
	case err != nil, n == 0 && len(s) >= headBytes:
		return nil, "", endsMalformed
	case n == 0:
		return nil, "", endsShort
	}
	m = newWireMessage(&h.Head, b)
	m.method, m.target, m.http10 = string(h.MethodName(b)), string(h.OriginTarget(b)), h.HTTP10
	if h.AbsoluteForm() {
		switch {
		case m.target == "" && m.method == "OPTIONS":
			m.target = "*"
		case !strings.HasPrefix(m.target, "/"):
			m.target = "/" + m.target
		}
		m.fields = slices.DeleteFunc(m.fields, func(f wireField) bool { return f.is("Host") })
		m.fields = slices.Insert(m.fields, 0, wireField{"Host", string(h.Authority(b))})
	}
	rest, end = m.readBody(s[n:], max(m.length, 0))
	return m, rest, end
}

// readBody reads a chunked body, or one of the given length.
func (m *wireMessage) readBody(s string, length int) (rest string, end wireEnd) {
	if m.chunked {
		return m.readChunks([]byte(s))
	}
	m.body = s[:min(length, len(s))]
	if m.complete = len(m.body) == length; !m.complete {
		return "", endsShort
	}
	return s[length:], endsClean
}

func (m *wireMessage) readChunks(b []byte) (rest string, end wireEnd) {
	scanner, section := http1.ChunkScanner{Lenient: m.ofPeer}, 0
	var body []byte
	defer func() { m.body, m.odd = string(body), m.odd || scanner.Odd }()
	for at := 0; at < len(b); {
		n, data, err := scanner.Next(b[at:])
		if err != nil {
			return "", endsMalformed
		}
		if section == 0 {
			body = append(body, b[at+data:at+n]...)
		}
		if at += n; scanner.InTrailer() && section == 0 {
			section = at
		}
		if scanner.Done() {
			for line := range strings.SplitSeq(strings.TrimSpace(string(b[section:at])), "\r\n") {
				if name, value, ok := strings.Cut(line, ":"); ok {
					m.trailers = append(m.trailers, wireField{name, strings.Trim(value, " \t")})
				}
			}
			m.complete = true
			return string(b[at:]), endsClean
		}
	}
	return "", endsShort
}

// readResponses reads what a peer sent for one request of the given method and
// then, if closed, closed the connection: interim responses and a final one. Nothing may be asked
// on the connection after a final one that is odd, or follows one that is.
func readResponses(s, method string, closed bool) (all []*wireMessage, rest string, end wireEnd) {
	for {
		m, after, end := readResponseHead(s)
		if m == nil {
			return all, "", end
		}
		m.odd = m.odd || len(all) > 0 && all[len(all)-1].odd
		all = append(all, m)
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
		rest, end = m.readBody(after, max(m.length, 0))
		return all, rest, end
	}
}

// readResponseHead reads a head, which it repairs; nil: there is none.
func readResponseHead(s string) (m *wireMessage, rest string, end wireEnd) {
	var h http1.ResponseHead
	h.Reset(oracleFields)
	b := []byte(s[:min(len(s), oracleHeadBytes)])
	n, err := h.Scan(b)
	odd := err != nil
	if odd {
		repaired, length, fault := http1.RepairResponse(b, oracleFields)
		if fault != nil || err == http1.ErrTooManyFields {
			return nil, "", endsMalformed
		}
		h.Reset(oracleFields)
		if b, n = repaired, length; n > 0 {
			if _, err := h.Scan(b); err != nil {
				return nil, "", endsMalformed
			}
		}
	}
	switch {
	case n == 0 && len(s) >= oracleHeadBytes:
		return nil, "", endsMalformed
	case n == 0:
		return nil, "", endsShort
	}
	m = newWireMessage(&h.Head, b)
	m.status, m.http10, m.ofPeer, m.odd = string(h.StatusText(b)), h.HTTP10, true, odd
	return m, s[n:], endsClean
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
