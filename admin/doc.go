// Package admin serves the state of a running sluice to operators and monitoring
// systems, and carries out their orders. docs/http-api.md and
// docs/metrics.md describe every answer.
//
// It reads what other packages publish: snapshots, statuses, counters. Only /consul and
// /api/replicas send requests, to Consul and the other replicas. No request to it takes
// a lock that a proxied request takes.
package admin
