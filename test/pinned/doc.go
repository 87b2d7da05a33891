// Package pinned builds programs of other projects for tests, examples and benchmarks: Consul
// and other load balancers. A nested module for each program pins its version, and separates
// its dependencies from the product's.
//
// A program is built once per user and version, into the user's cache directory. The build
// needs Go, a module proxy and the source tree of this repository.
package pinned
