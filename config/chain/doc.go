// Package chain translates a discovery chain, as Consul has compiled it, into the terms of the
// configuration: branches of routes, services with targets, and problems, which say what sluice
// does not carry out. It is pure.
package chain
