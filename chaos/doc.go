// Package chaos holds a test alone: the whole of sluice in front of a real
// Consul cluster, with ACLs, to which everything happens that can happen to one,
// while requests go on.
//
// The order of the faults depends on a seed. SLUICE_CHAOS_SEEDS=20 runs that many
// seeds one after the other; without it one is run, and with -short only some
// faults of it. The figures are in the test's log (go test -v).
package chaos
