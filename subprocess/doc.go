// Package subprocess runs programs that must not outlive this one: the servers
// that tests, examples and benchmarks need. It also keeps what they write.
package subprocess
