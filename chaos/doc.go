// Package chaos holds a test alone: the whole of sluice in front of a real
// Consul cluster, with ACLs, to which everything happens that can happen to one,
// while requests go on and apps come and go.
//
// The order of the faults depends on a seed. SLUICE_CHAOS_SEEDS=20 runs that many
// seeds one after the other, from SLUICE_CHAOS_FIRST_SEED (1) on, and insists that
// a new app is served soon after the end of each fault; without it one is run, and
// with -short only some faults of it. The figures are in the test's log (go test
// -v).
package chaos
