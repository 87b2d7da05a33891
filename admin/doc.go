// Package admin serves what an operator and a monitoring system want to know
// about a running sluice, over HTTP:
//
//	GET /                          a page that shows services and peers live, and drains peers
//	GET /api/peers, /api           every peer of every pool
//	GET /api/services              every service: its watch, its pool
//	GET /api/catalog               the services that were found in Consul's catalog
//	GET /api/replicas              the replicas of sluice, and whether they agree
//	GET /api/replica               what this one tells the others
//	GET /api/routes                the route table, in the order it is tried
//	GET /api/config                the configuration in use, secrets masked
//	GET /api/config/history        what was applied before it
//	GET /api/config/history/{n}    one of those in full
//	POST /api/peers/{service}/{id}/drain and …/enable
//	                               take a peer out, and back in
//	GET /consul, /consul/{service} Consul's own answer beside the pools
//	GET /metrics                   Prometheus
//	GET /debug/pprof/              Go's profiles
//	GET /healthz                   200 as long as the process serves
//	GET /readyz                    200 once requests can be served, else 503
//
// But for those orders it only reads what the other packages publish for it anyway:
// snapshots, statuses, counters. Only /consul asks Consul, and /api/replicas Consul
// and the other replicas. No request to it takes a lock that a proxied request
// takes. docs/http-api.md and docs/metrics.md describe every answer.
package admin
