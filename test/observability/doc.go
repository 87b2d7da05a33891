// Package observability tests the rules and the dashboard of examples/observability: their
// expressions are valid, and what they name is what /metrics of a running sluice has. It is a
// module of its own, for Prometheus' parser.
package observability
