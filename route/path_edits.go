package route

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// PathEdits are edits of the path that peers get, in the order of the fields. The zero
// value does nothing. They change the path as sent: what they keep stays encoded as it is.
type PathEdits struct {
	strip        string // without a slash at its end
	stripsString bool
	ignoresCase  bool
	add          string // without a slash at its end
	replacement  string // of strip; empty: none
	rewrite      *expression
	to           Template
}

// PathOptions describe PathEdits.
type PathOptions struct {
	// Strip is a prefix to remove, such as "/api".
	Strip string
	// StripString: Strip is a prefix of the text, not of the segments: "/api" is one of
	// "/apix" too.
	StripString bool
	// IgnoreCase: letters of Strip may be in the other case.
	IgnoreCase bool
	// Replacement takes the place of Strip, where a path begins with it: "/v1" instead of "/api"
	// makes "/v1/x" of "/api/x", "/v1" of "/api", and with StripString "/v1x" of "/apix". No slash
	// is doubled.
	Replacement string
	// Add is a prefix to add. Not with Replacement.
	Add string
	// A path that Rewrite matches becomes To, a template with its groups only, which may have a
	// query. A result that starts with a group, and not with a slash, gets a slash. nil: no path
	// does.
	Rewrite *regexp.Regexp
	To      string
	Bounded bool // as in Route
}

// NewPathEdits checks o. An *OptionError says what is invalid.
func NewPathEdits(o PathOptions) (PathEdits, error) {
	e := PathEdits{
		strip: strings.TrimSuffix(o.Strip, "/"), stripsString: o.StripString, ignoresCase: o.IgnoreCase,
		add: strings.TrimSuffix(o.Add, "/"), replacement: o.Replacement,
	}
	for _, prefix := range [][2]string{{"strip_prefix", o.Strip}, {"add_prefix", o.Add}, {"prefix_rewrite", o.Replacement}} {
		if err := checkPrefix(prefix[1]); err != nil {
			return PathEdits{}, &OptionError{prefix[0], prefix[1], err}
		}
	}
	if o.Rewrite == nil {
		return e, nil
	}
	e.rewrite = newExpression(o.Rewrite, o.Bounded)
	var err error
	if e.to, err = ParseTemplate(o.To, e.rewrite.NumSubexp()); err == nil {
		err = checkRewritten(&e.to)
	}
	if err != nil {
		return PathEdits{}, &OptionError{"rewrite.to", o.To, err}
	}
	return e, nil
}

// checkPrefix accepts a path without an octet that has another spelling.
func checkPrefix(s string) error {
	switch {
	case s == "":
		return nil
	case s[0] != '/':
		return errors.New("must start with a slash")
	}
	if i := strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`%\;?#`, c) }); i >= 0 {
		return fmt.Errorf("contains %q: want printable ASCII without %% \\ ; ? #", s[i])
	}
	if !literal([]byte(s)) || strings.HasSuffix(s, "/..") || strings.HasSuffix(s, "/.") {
		return errors.New("has an empty segment or a dot segment")
	}
	return nil
}

// checkRewritten accepts a template that makes a target in origin form of any groups.
func checkRewritten(t *Template) error {
	for i, p := range t.parts {
		if startsWithGroup := p.text == "" && p.variable == variableGroup; i == 0 && !startsWithGroup && !strings.HasPrefix(p.text, "/") {
			return errors.New("must start with a slash, or with a group of the regular expression")
		}
		if p.variable > variableGroup {
			return errors.New("may contain groups of the regular expression, such as $1, and no other variables")
		}
		if j := strings.IndexFunc(p.text, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' }); j >= 0 {
			return fmt.Errorf("contains %q: want printable ASCII without spaces and #", p.text[j])
		}
	}
	if len(t.parts) == 0 {
		return errors.New("must start with a slash")
	}
	return nil
}

// Empty reports whether e does nothing.
func (e *PathEdits) Empty() bool {
	return e.strip == "" && e.add == "" && e.replacement == "" && e.rewrite == nil
}

// Stripped returns the prefix that e removes, without a slash at its end; "": none.
func (e *PathEdits) Stripped() string { return e.strip }

// Replacement returns what takes the place of the prefix; "": nothing.
func (e *PathEdits) Replacement() string { return e.replacement }

// Errors of [PathEdits.Append]: the path can be read in two ways, of which servers choose
// either, so that the result could name something outside of what the route is for.
var (
	// ErrDotSegment means that the path has a segment "..", in any spelling.
	ErrDotSegment = errors.New(`the path has a segment ".."`)
	// ErrEncodedPrefix means that the path begins with the prefix to remove only after
	// it is decoded.
	ErrEncodedPrefix = errors.New("the path begins with the prefix in another spelling")
)

// ErrSteps is an error of [PathEdits.Append]: too few steps are left for the expression.
var ErrSteps = errors.New("too few steps are left for the regular expression")

// Append appends the edited target of a request. path is the path as sent, query the
// query with its question mark, or empty.
func (e *PathEdits) Append(out, path, query []byte, steps *Steps) (target []byte, stripped bool, err error) {
	if len(path) == 0 {
		path = rootPath
	}
	if climbs(path) {
		return out, false, ErrDotSegment
	}
	start := len(out)
	out, stripped, err = e.appendPrefixed(out, path)
	if err != nil {
		return out, false, err
	}
	if e.rewrite != nil {
		path := out[start:]
		groups := e.rewrite.find(path, steps)
		if groups == nil && steps != nil && steps.exceeded {
			return out[:start], false, ErrSteps
		}
		if groups != nil {
			rewritten := e.to.appendGroups(nil, nil, path, groups)
			if out = out[:start]; !bytes.HasPrefix(rewritten, rootPath) {
				out = append(out, '/')
			}
			out = append(out, rewritten...)
		}
	}
	path, own, _ := bytes.Cut(out[start:], []byte("?"))
	if climbs(path) {
		return out[:start], false, ErrDotSegment
	}
	if len(query) > 1 && own != nil {
		out = append(append(out, '&'), query[1:]...)
	} else {
		out = append(out, query...)
	}
	return out, stripped, nil
}

// ChosenTarget returns the target of a request for which somebody else has chosen a path. The path
// may have a query, or end with a question mark for none; else the query is that of the request,
// with its question mark, or none.
func ChosenTarget(path string, query []byte) ([]byte, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, errors.New("must start with a slash")
	}
	if i := strings.IndexFunc(path, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' }); i >= 0 {
		return nil, fmt.Errorf("contains %q: want printable ASCII without spaces and #", path[i])
	}
	target := []byte(path)
	own := bytes.IndexByte(target, '?')
	if own < 0 {
		own, target = len(target), append(target, query...)
	}
	if climbs(target[:own]) {
		return nil, ErrDotSegment
	}
	return bytes.TrimSuffix(target, []byte("?")), nil
}

// appendPrefixed appends path with another prefix.
func (e *PathEdits) appendPrefixed(out, path []byte) (edited []byte, stripped bool, err error) {
	rest, stripped := path, e.strip == "" && e.replacement != ""
	if e.strip != "" {
		if rest, stripped = e.cutFrom(path); !stripped && !literal(path) && e.hasDecoded(path) {
			return out, false, ErrEncodedPrefix
		}
	}
	whole := stripped && len(rest) == 0
	switch {
	case stripped && e.replacement != "" && (whole || rest[0] != '/'):
		return append(append(out, e.replacement...), rest...), true, nil
	case stripped && e.replacement != "":
		out = append(out, strings.TrimSuffix(e.replacement, "/")...)
	default:
		if out = append(out, e.add...); whole || rest[0] != '/' {
			out = append(out, '/')
		}
	}
	return append(out, rest...), stripped && e.strip != "", nil
}

// cutFrom returns path without strip, if it begins with it: a text that may be empty, or begin in
// the middle of a segment.
func (e *PathEdits) cutFrom(path []byte) (rest []byte, ok bool) {
	if !e.begins(path, e.strip) {
		return path, false
	}
	rest = path[len(e.strip):]
	if len(rest) == 0 || rest[0] == '/' || e.stripsString && pathClass[rest[0]] == plain {
		return rest, true
	}
	return path, false
}

func (e *PathEdits) begins(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && equalText(text[:len(prefix)], prefix, e.ignoresCase)
}

// equalText reports whether a is b. Of letters that are not ASCII, case matters.
func equalText(a []byte, b string, ignoreCase bool) bool {
	if !ignoreCase || len(a) != len(b) {
		return string(a) == b
	}
	for i, c := range a {
		if lowerOctet(c) != lowerOctet(b[i]) {
			return false
		}
	}
	return true
}

func lowerOctet(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// literal reports whether path is in its normal form: no octet is encoded, and no segment
// is empty, begins with a dot, or has parameters. The last one may be empty.
func literal(path []byte) bool {
	for i, c := range path {
		if pathClass[c] == special || c == '/' && i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
			return false
		}
	}
	return true
}

// hasDecoded reports whether the normal form of the path begins with the prefix.
func (e *PathEdits) hasDecoded(path []byte) bool {
	decoded := appendNormal(make([]byte, 0, len(path)+1), path)
	if !e.stripsString {
		return e.begins(decoded, e.strip+"/")
	}
	return e.begins(decoded, e.strip)
}
