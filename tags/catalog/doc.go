// Package catalog is what Consul's catalog adds to the configuration: the services that a [Finder] finds
// in it, and the routes that the tags of their instances ask for, which a [Reader] reads.
//
// Reading tags is not on the way of a set to its pool. A [Gate] stands there, and waits for nobody: it
// passes each set at once, without instances whose tags ask for routes that are not in use yet. The
// Reader looks at what the gates have seen, when a configuration is applied, and then names the
// routes in use.
package catalog
