// Package route decides which service answers a request.
//
// A [Table] is immutable: a reload builds another one and swaps an atomic pointer.
// [Table.Match] allocates nothing. It costs one map look-up for the host and one per
// path segment that some route has, independent of the number of routes.
//
// # Order
//
// Hosts are matched from the most to the least specific (exact, longest wildcard, any),
// then paths (most segments first). If no path of the most specific host matches, the
// next host is tried. Two routes with the same host and path are an error.
//
// # Paths
//
// Servers differ in the spellings of a path that they treat as equal. So that no
// spelling bypasses a route, Match reads a path as the most liberal server does:
//
//   - percent-encoded octets are decoded once, "%2f" and "%2e" too;
//   - a backslash is a slash;
//   - parameters of a segment (from ";" to its end) are ignored;
//   - empty segments and "." are skipped, ".." goes up one segment, not above the root.
//
// "/a/../admin", "/a/..%2fadmin", "/a/..;/admin" and "//admin" all match a route for
// "/admin". The request is forwarded with its target unchanged. "%252e" is decoded once
// and is not a dot.
package route
