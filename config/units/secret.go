package units

import (
	"net/url"
	"strconv"
	"strings"
	"unique"
)

// mask is shown in place of what is secret.
const mask = "***"

// A Secret is a text that is shown as "***" wherever it is printed, logged or encoded. It can be
// compared. The zero value is the empty text.
type Secret struct{ text }

// NewSecret returns a secret.
func NewSecret(s string) Secret { return Secret{textOf(s)} }

// String returns "***", or "" for an empty secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return mask
}

// GoString masks the secret in %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// MarshalText masks the secret in JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Location is a path, a URL or the address of a server. It is shown as
// "https://***@host/path?***" wherever it is printed, logged or encoded: user information, a query
// and a fragment may be credentials. It can be compared. The zero value is the empty text.
type Location struct{ text }

// NewLocation returns a location.
func NewLocation(s string) Location { return Location{textOf(s)} }

// String returns l without what may be a credential.
func (l Location) String() string {
	shown, start, user, rest := l.parts()
	if user != "" {
		shown = shown[:start] + mask + shown[start+len(user):]
	}
	if rest != "" {
		shown += mask
	}
	return shown
}

// parts returns l up to a query or a fragment, with its mark; where in that the user information
// is; and what comes after the mark. The text may be no valid URL.
func (l Location) parts() (shown string, start int, user, rest string) {
	shown = l.Reveal()
	if i := strings.IndexAny(shown, "?#"); i >= 0 {
		shown, rest = shown[:i+1], shown[i+1:]
	}
	if i := strings.Index(shown, "://"); i >= 0 {
		start = i + len("://")
	}
	authority := shown[start:]
	if _, err := url.Parse(shown); err == nil { // else a password may have a slash
		if i := strings.IndexAny(authority, "/?#"); i >= 0 {
			authority = authority[:i]
		}
	}
	user = authority[:max(0, strings.LastIndexByte(authority, '@'))]
	return shown, start, user, rest
}

// MaskIn masks in a text what may be a credential of l. Errors of net/http, and answers of servers,
// may have it.
func (l Location) MaskIn(text string) string {
	_, _, user, rest := l.parts()
	for _, secret := range []string{rest, user} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, mask)
		}
	}
	return text
}

// GoString masks l in %#v.
func (l Location) GoString() string { return strconv.Quote(l.String()) }

// MarshalText masks l in JSON and YAML.
func (l Location) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// text is a text that only Reveal shows. It is behind a pointer because package fmt calls no
// methods of what is in fields that are not exported, and prints strings there.
type text struct{ handle unique.Handle[string] }

func textOf(s string) (t text) {
	if s != "" {
		t.handle = unique.Make(s)
	}
	return t
}

// Reveal returns the text as it is, for who sends it. It must not be printed, logged or shown.
func (t text) Reveal() string {
	if t.IsZero() {
		return ""
	}
	return t.handle.Value()
}

// IsZero reports whether the text is empty.
func (t text) IsZero() bool { return t == text{} }
