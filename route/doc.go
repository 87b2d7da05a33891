// Package route decides which service answers a request.
//
// A [Table] is immutable: a reload builds another one and swaps an atomic pointer.
// [Table.Match] allocates nothing. It costs one map look-up for the host and one per
// path segment that some route has, independent of the number of routes. Conditions cost
// more, for the routes that host and path leave over, and so do regular expressions,
// which are found by the text that their matches begin with.
//
// # Order
//
// The routes of a table have a total order, and the first one that matches a request
// wins. They are in blocks: documents' routes with an exact host or a priority above 0;
// routes of tags with a priority above 0; others with a host; routes of Traefik's tags;
// others without a host; routes with a priority below 0. Within a block the order is:
//
//   - the higher priority (of Traefik's tags only this);
//   - exact host, wildcard (more labels first), regular expression, any host;
//   - exact path, prefix (the longer first), regular expression (the longer first);
//   - more conditions;
//   - the order in which they were given.
//
// Two routes that match the same requests are an error.
//
// # Paths
//
// Servers differ in the spellings of a path that they treat as equal. So that no
// spelling bypasses a route, Match reads a path as the most liberal server does, and
// compares this normal form in every kind of match:
//
//   - percent-encoded octets are decoded once, "%2f" and "%2e" too;
//   - a backslash is a slash;
//   - parameters of a segment (from ";" to its end) are ignored;
//   - empty segments, the one after a final slash too, and "." are skipped, ".." goes up
//     one segment, not above the root.
//
// "/a/../admin", "/a/..%2fadmin", "/a/..;/admin" and "//admin" all match a route for
// "/admin". The request is forwarded with its target unchanged. "%252e" is decoded once
// and is not a dot.
package route
