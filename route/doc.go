// Package route decides which service answers a request.
//
// A [Table] is built once from a list of routes and never changes; whoever
// serves requests holds it behind an atomic pointer and swaps the pointer on
// a reload. [Table.Match] costs one map look-up for the host and one for each
// segment of the path that some route has, whatever the number of routes, and
// allocates nothing.
//
// # Order
//
// Routes are tried from the most to the least specific: by host (exact, then
// the longest wildcard, then any), then by path (most segments first). A
// route is a rule, not a virtual host: if no path of the most specific host
// matches, the next host is asked. Two routes with the same host and path are
// an error.
//
// # How a path is read
//
// A path can be written in many ways that servers take for the same one, and
// servers differ in how many they know. So that no spelling leads past a
// route, Match reads the path as the most liberal of them would:
//
//   - percent-encoded octets are decoded, once, also "%2f" and "%2e";
//   - a backslash is a slash;
//   - parameters of a segment (from ";" to its end) are ignored, as servlet
//     containers do;
//   - empty segments and "." are skipped, ".." goes up one segment and never
//     above the root.
//
// "/a/../admin", "/a/..%2fadmin", "/a/..;/admin" and "//admin" all match a
// route for "/admin". This reading is for matching only: the request is
// forwarded with its target byte for byte, so that a peer sees what the
// client sent. An octet that is encoded twice ("%252e") is decoded once and
// thus not a dot.
package route
