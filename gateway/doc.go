// Package gateway is the running program: it makes a configuration happen.
//
// A [Gateway] owns what lives longer than a configuration: the listeners, the
// pools with their peers, the watches that feed them, the logs. Reloading
// compares the services that are wanted with those that are there:
//
//  1. everything that can fail is made first: new pools, sources, the route
//     table. If any of it fails, nothing has changed;
//  2. new pools are watched, and get a moment to learn their first peers;
//  3. the route table is swapped: from here on requests follow the new routes;
//  4. the services that are gone are no longer watched and their pools drain.
//
// A service that is still there keeps its pool, and so its peers with their
// counters, health and connections, whatever else changed about it.
//
// Data flows as everywhere in sluice: discovery.Manager calls the gateway with
// a full set, the gateway hands it to the pool; the proxy looks up a route and
// picks from its pool.
package gateway
