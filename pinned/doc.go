// Package pinned builds programs of other projects that tests, examples and
// benchmarks run: Consul, and other load balancers. A nested module of each, with
// a go.mod and a go.sum of its own, says which version that is, and keeps the
// program's dependencies out of the product.
//
// A program is built once per user and version, into the user's cache directory.
// That needs Go, a module proxy and this repository's source tree.
package pinned
