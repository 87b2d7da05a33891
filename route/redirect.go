package route

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Redirect answers requests with another URL.
type Redirect struct {
	code       int
	to         Template
	keepsQuery bool
}

// RedirectCodes are the statuses of a Redirect.
var RedirectCodes = []int{301, 302, 303, 307, 308}

// NewRedirect returns a redirect to the URL that the template to makes: an absolute one
// for HTTP, or one that begins with a slash. If to has no query, that of the request is
// added.
func NewRedirect(to string, code int) (*Redirect, error) {
	if !slices.Contains(RedirectCodes, code) {
		return nil, fmt.Errorf("%d is not the status of a redirect", code)
	}
	t, err := ParseTemplate(to, NoGroups)
	if err != nil {
		return nil, err
	}
	if i := strings.IndexFunc(to, func(c rune) bool { return c <= ' ' || c > '~' }); i >= 0 {
		return nil, fmt.Errorf("contains %q: want printable ASCII without spaces", to[i])
	}
	absolute := strings.HasPrefix(to, "http://") || strings.HasPrefix(to, "https://") || strings.HasPrefix(to, "$scheme://") || strings.HasPrefix(to, "${scheme}://")
	if !absolute && (!strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//")) {
		return nil, errors.New("must start with http://, https://, $scheme:// or one slash")
	}
	return &Redirect{code, t, !strings.ContainsAny(to, "?#")}, nil
}

// Code returns the status.
func (r *Redirect) Code() int { return r.code }

// Append appends the URL for a request.
func (r *Redirect) Append(out []byte, values Values) []byte {
	start := len(out)
	out = r.to.Append(out, values)
	if r.keepsQuery {
		if query := values.Variable(VariableQuery); len(query) > 0 && bytes.IndexByte(out[start:], '?') < 0 {
			out = append(append(out, '?'), query...)
		}
	}
	// A URL that begins with two slashes names a host, which a path could choose.
	// Browsers read a backslash as a slash.
	for len(out) > start+1 && out[start] == '/' && (out[start+1] == '/' || out[start+1] == '\\') {
		out = append(out[:start+1], out[start+2:]...)
	}
	return out
}
