// Package consul watches services in Consul. [Sources] creates a source for each
// service: a loop of blocking queries on /v1/health/service/SERVICE. Package
// sluice/consul chooses the agent and sends the queries.
//
// A source queries all instances with any health and derives their status:
// maintenance mode overrides critical, critical overrides warning, warning overrides
// passing. So the reason of an instance out of service is known. The weight of an
// instance is Consul's for its status (Weights.Passing, Weights.Warning); critical and
// maintenance weigh 0.
//
// # What an answer may take out of service
//
// [discovery.Guard] has the rules. An answer is doubtful if it reports no
// leader, is from a cache that the servers have not updated for a while, or is from a
// view while the agent has known no leader for a while. It is also doubtful if ACLs
// filtered it (X-Consul-Results-Filtered-By-ACLs), and it is empty or lacks an instance
// that an unfiltered answer had.
//
// An agent answers blocking queries from its streaming backend
// (X-Consul-Query-Backend). These answers report neither leaders nor ACLs: when a token
// loses its permissions, they are empty. So a source confirms removals at once by a
// query in the mode "consistent", which only a current leader answers. Consul has lost
// its state when the index of this answer goes backwards, too.
//
// Each source has its own [discovery.Watcher]: the data centres of a service have separate losses.
package consul
