// Package matchers compares what it costs to find the route of a request in the route tables of
// sluice, fabio and Traefik: the same routes, the same requests, in one process, without a network.
//
//	go -C bench/matchers test -bench .
//
// It is a module of its own, because it imports fabio and Traefik.
package matchers
