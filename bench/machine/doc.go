// Package machine is what benchmarks need to know of the machine that they run
// on: what it is, which programs are installed, and which ports are free.
package machine
