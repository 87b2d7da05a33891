// Package gateway is the running program: it applies a configuration.
//
// A [Gateway] connects the parts that outlive a configuration: services with their watches and
// pools, registries, listeners, the admin server, the log of requests, and what this
// process is for others: its readiness, upgrade and replica. Each has a file of its name.
//
// A configuration is merged from fragments: the file, and the services found in Consul's
// catalog. The start, a reload and a change of the catalog all apply it in the same steps:
//
//  1. create everything that can fail: pools, sources, the route table and, if more than the
//     catalog has changed, listeners and the access log. After an error nothing has changed;
//  2. watch the new services, and wait a limited time for their first peers;
//  3. swap the route table and the settings for clients: from now on requests use the new ones;
//  4. serve new listeners, and drain removed ones;
//  5. end the watches of removed services, and drain their pools.
//
// A service that stays configured keeps its pool with the peers, their counters, health and
// connections.
//
// discovery.Manager calls the gateway with a full set of instances, which the gateway
// passes to the pool. The proxy looks up a route and picks a peer from its pool.
package gateway
