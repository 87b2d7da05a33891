package route

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Redirect answers requests with another URL.
type Redirect struct {
	codes      RedirectCodes
	regexp     *expression // of URLs that are redirected; nil: all
	to         Template
	keepsQuery bool
}

// RedirectCodes are the statuses of a Redirect.
type RedirectCodes struct {
	Code int
	Get  int // for GET; 0: Code
}

// isRedirect reports whether a status is one of a [Redirect].
func isRedirect(code int) bool { return slices.Contains([]int{301, 302, 303, 307, 308}, code) }

// maxLocation is the length of a URL that a redirect with a regular expression may make.
const maxLocation = 16 << 10

// NewRedirect returns a redirect to the URL that the template to makes: an absolute one
// for HTTP, or one that begins with a slash. If to has no query, the request's query is
// added.
func NewRedirect(to string, codes RedirectCodes) (*Redirect, error) {
	t, err := redirectTo(to, codes, NoGroups)
	if err != nil {
		return nil, err
	}
	absolute := strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "https://") || strings.HasPrefix(to, "$scheme://") || strings.HasPrefix(to, "${scheme}://")
	if !absolute && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//")) {
		return nil, errors.New("must start with http://, https://, $scheme:// or one slash")
	}
	return &Redirect{codes: codes, to: t, keepsQuery: !strings.ContainsAny(to, "?#")}, nil
}

// NewRegexpRedirect returns a redirect of the requests in whose URL, with scheme, authority, path
// and query as sent, the regular expression is found. to may have its groups. bounded is as in
// Route.
func NewRegexpRedirect(re *regexp.Regexp, to string, codes RedirectCodes, bounded bool) (*Redirect, error) {
	if n := len(re.String()); n > maxRegexp {
		return nil, fmt.Errorf("the regular expression has %d characters, the limit is %d", n, maxRegexp)
	}
	t, err := redirectTo(to, codes, re.NumSubexp())
	if err != nil {
		return nil, err
	}
	return &Redirect{codes: codes, regexp: newExpression(re, bounded), to: t}, nil
}

func redirectTo(to string, codes RedirectCodes, groups int) (Template, error) {
	for _, code := range []int{codes.Code, cmp.Or(codes.Get, codes.Code)} {
		if !isRedirect(code) {
			return Template{}, fmt.Errorf("%d is not the status of a redirect", code)
		}
	}
	if i := strings.IndexFunc(to, func(c rune) bool { return c <= ' ' || c > '~' }); i >= 0 {
		return Template{}, fmt.Errorf("contains %q: want printable ASCII without spaces", to[i])
	}
	return ParseTemplate(to, groups)
}

// Code returns the status; get says that the method is GET.
func (r *Redirect) Code(get bool) int {
	if get && r.codes.Get != 0 {
		return r.codes.Get
	}
	return r.codes.Code
}

// Append appends the URL for a request. It appends nothing for one that is not redirected:
// the regular expression does not match its URL, or the groups make no URL for HTTP, or one
// of more than 16 KiB. If steps are Exceeded then, the request must be denied.
func (r *Redirect) Append(out []byte, values Values, steps *Steps) []byte {
	start := len(out)
	if r.regexp != nil {
		url := appendURL(nil, values)
		groups := r.regexp.find(url, steps)
		if groups == nil {
			return out
		}
		out = r.to.appendGroups(out, values, url, groups)
		if made := out[start:]; len(made) > maxLocation ||
			!bytes.HasPrefix(made, []byte("http://")) && !bytes.HasPrefix(made, []byte("https://")) && !bytes.HasPrefix(made, []byte("/")) {
			return out[:start]
		}
		return withoutSlashes(out, start)
	}
	out = r.to.Append(out, values)
	if r.keepsQuery {
		if query := values.Variable(VariableQuery); len(query) > 0 && bytes.IndexByte(out[start:], '?') < 0 {
			out = append(append(out, '?'), query...)
		}
	}
	return withoutSlashes(out, start)
}

// withoutSlashes makes a URL that begins with two slashes one that begins with one: it would
// name a host, which a path could choose. Browsers read a backslash as a slash.
func withoutSlashes(out []byte, start int) []byte {
	for len(out) > start+1 && out[start] == '/' && (out[start+1] == '/' || out[start+1] == '\\') {
		out = append(out[:start+1], out[start+2:]...)
	}
	return out
}

// appendURL appends the URL of a request.
func appendURL(out []byte, values Values) []byte {
	out = append(append(out, values.Variable(VariableScheme)...), "://"...)
	out = append(out, values.Variable(VariableAuthority)...)
	return append(out, values.Variable(VariableTarget)...)
}
