// Package catalog is what Consul's catalog adds to the configuration: services that a [Finder]
// finds, and routes that their instances' tags ask for, which a [Reader] reads.
//
// Reading tags delays no set on its way to its pool. A [Gate] passes each set at once, without the
// instances whose tags ask for routes that are not in use yet. When a configuration is applied,
// the Reader looks at what the gates have seen, and names the routes in use.
package catalog
