// Package simulation tests everything between a registry and the choice of a peer, in
// virtual time (testing/synctest).
//
// A seed determines a run: which instances register, leave, fail their checks, change
// weight or address; when the registry is late or silent; which peers are slow, refuse,
// hang, reset or answer 503; when clients come and go; what an operator drains and how
// the configuration changes. The registry, the peers and the clients are simulated.
// discovery.Manager, in some runs the source of discovery/consul and its catalog watch,
// balancer.Pool, healthcheck.Checker and the attempt loop are real.
//
// After each step, when all goroutines wait, the run compares the state with a model of
// inputs and outputs. docs/dev/testing.md lists the checks, and how to repeat a seed.
package simulation
