// Package registration registers a service in Consul and keeps it registered: this
// sluice, or an application (package app).
//
// A [Registrar] compares the registration with the agent in use every ten seconds, and
// at once after a change of agent or token, and registers again what is missing or
// different. Then it deregisters the service from other agents, so that it is listed
// once and never missing.
//
// Several agents may answer at one address, behind a load balancer. Then the catalog tells
// which of them have the registration, and the registrar keeps exactly one.
//
// The meta of a registration identifies its owner ([Owner]). So a process also
// finds the registrations of its predecessors: crashed, replaced, or with another id.
package registration
