// Package simulation has no code for the program: it is a test of everything
// that lies between a registry and the choice of a peer, as one, in virtual
// time.
//
// A seed decides what happens in a run: which instances register, leave, fail
// their checks, change their weight or their address; when the registry answers
// late or not at all; which peers are slow, refuse, hang, reset or answer 503;
// when clients come and go; what an operator drains and how the configuration
// changes. The registry, the peers and the clients are scripted. What is in
// between is the real thing: discovery.Manager, in some runs with the source of
// discovery/consul in front of it and its watch of the catalog beside it,
// balancer.Pool, healthcheck.Checker and the attempt loop of package proxy.
//
// Time is that of testing/synctest. After each step the run waits until nothing
// moves any more, and holds what the program shows against a model that has
// only seen what came in and what went out. See docs/testing.md for what is
// checked and how a seed is run again.
package simulation
