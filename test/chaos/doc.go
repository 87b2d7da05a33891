// Package chaos tests sluice with a real Consul cluster with ACLs, under load, while
// apps come and go and faults happen.
//
// A seed determines the order of the faults. SLUICE_CHAOS_SEEDS=20 runs that many seeds
// from SLUICE_CHAOS_FIRST_SEED (1) on, and requires that a new app is served soon after
// the end of each fault. With SLUICE_TESTS=all alone, it runs one seed.
// The test's log has the figures (go test -v).
package chaos
