package discovery

import (
	"net/url"
	"strings"
)

// PathSegment escapes a name for one segment of a URL's path. Unlike url.PathEscape it escapes the
// names "." and "..", which servers take for this folder and its parent (RFC 3986 section 5.2.4).
func PathSegment(name string) string {
	if name == "." || name == ".." {
		return strings.ReplaceAll(name, ".", "%2E")
	}
	return url.PathEscape(name)
}
