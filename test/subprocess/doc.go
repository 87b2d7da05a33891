// Package subprocess runs programs that must not outlive this one: servers for tests, examples and
// benchmarks. It also stores their output.
package subprocess
