package proxy

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	oracleOddExtensionBytes = 512
	oracleOddDigits         = 20
)

var (
	headEndPattern = regexp.MustCompile("\n\r?\n")
	oddVersion     = regexp.MustCompile("^HTTP/1[.][2-9] ")
	oddSizePattern = regexp.MustCompile("^0*[0-9A-Fa-f]{1,15}[ \t]*(?:" + extensionPattern + ")*$")
	controls       = regexp.MustCompile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
)

// cutResponse is cutHead for the response m, which it repairs.
func (m *wireMessage) cutResponse(s string) (lines []string, rest string, end wireEnd) {
	at := headEndPattern.FindStringIndex(s)
	switch {
	case at != nil && at[1] <= oracleHeadBytes:
	case len(s) >= oracleHeadBytes:
		return nil, "", endsMalformed
	default:
		return nil, "", endsShort
	}
	for line := range strings.SplitSeq(s[:at[0]+1], "\n") {
		plain, ok := strings.CutSuffix(line, "\r")
		m.odd = m.odd || !ok && line != "" // what follows the last LF
		lines = append(lines, plain)
	}
	m.odd = m.odd || !strings.HasSuffix(s[:at[1]], "\r\n")
	if lines = lines[:len(lines)-1]; len(lines) > oracleFields+1 {
		return nil, "", endsMalformed
	}
	m.repairFields(lines)
	if !m.repairLengths(&lines) {
		return nil, "", endsMalformed
	}
	return lines, s[at[1]:], endsClean
}

// repairFields repairs the lines for themselves.
func (m *wireMessage) repairFields(lines []string) {
	for i, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		f := wireField{name, value}
		switch {
		case i == 0 && matches(oddVersion, line):
			m.odd, lines[0] = true, strings.Replace(line, line[:8], "HTTP/1.1", 1)
		case i > 0 && ok && !f.is("Content-Length", "Transfer-Encoding") && controls.MatchString(value):
			m.odd, lines[i] = true, name+":"+controls.ReplaceAllString(value, " ")
		}
	}
}

// repairLengths makes one of what the lines say of the length, and reports whether it can be.
func (m *wireMessage) repairLengths(lines *[]string) bool {
	var lengths []int
	var at []int
	chunked := false
	for i, line := range (*lines)[1:] {
		name, value, _ := strings.Cut(line, ":")
		f := wireField{name, strings.Trim(value, " \t")}
		chunked = chunked || f.is("Transfer-Encoding") && equalASCII(f.value, "chunked")
		if !f.is("Content-Length") {
			continue
		}
		at = append(at, i+1)
		for element := range strings.SplitSeq(value, ",") {
			element = strings.Trim(element, " \t")
			if !matches(lengthPattern, element) {
				return false
			}
			n, _ := strconv.Atoi(element)
			lengths = append(lengths, n)
		}
	}
	if slices.ContainsFunc(lengths, func(n int) bool { return n != lengths[0] }) {
		return false
	}
	if chunked && strings.HasPrefix((*lines)[0], "HTTP/1.0 ") {
		m.odd, (*lines)[0] = true, strings.Replace((*lines)[0], "1.0", "1.1", 1)
	}
	if len(lengths) > 1 || len(lengths) > 0 && chunked {
		m.odd = true
		for _, i := range slices.Backward(at) {
			*lines = slices.Delete(*lines, i, i+1)
		}
		if !chunked {
			*lines = append(*lines, "Content-Length: "+strconv.Itoa(lengths[0]))
		}
	}
	return true
}

// cutSize returns the size in a line of a chunked body, and how many bytes of the line are none
// of it.
func (m *wireMessage) cutSize(line string) (size int64, others int, ok bool) {
	hex, extension, _ := strings.Cut(line, ";")
	ok = matches(chunkSizePattern, line) && len(extension) <= oracleExtensionBytes
	others = len(extension)
	if !ok && m.ofPeer {
		plain := strings.TrimRight(hex, " \t")
		others += len(hex) - len(plain)
		hex = plain
		ok = matches(oddSizePattern, line) && len(hex) <= oracleOddDigits && others <= oracleOddExtensionBytes
		m.odd = m.odd || ok
	}
	size, _ = strconv.ParseInt(hex, 16, 64)
	return size, others, ok
}
