// Package observability tests the rules and the dashboard of examples/observability: their
// expressions are valid, what they name is what /metrics of a running sluice has, and a real
// Prometheus finds it. It is a module of its own, for Prometheus' parser.
package observability
