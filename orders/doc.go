// Package orders keeps what operators have ordered about peers: drains, and weights in place of
// the registry's. An order is about a peer, or drains all peers of a node, and lasts until it is
// ended or expires; whether the peers exist does not matter.
//
//	store := orders.New(orders.Options{Path: "/var/lib/sluice/orders.json", Changed: apply})
//	err := store.Open()                   // reads the file
//	store.Resume()                        // follows Consul
//	err = store.Give(orders.Order{Kind: orders.Drain, Node: "n1", Why: "new disks"})
//	found, err := store.End(key, "root")
//
// # The file
//
// With Options.Path the orders are in a file when Give and End return, so they survive a restart.
// A damaged file is not used, and is renamed to ….damaged.
//
// # Replicas
//
// With Options.Prefix each order is also a key of Consul's KV store, and all replicas that follow
// the prefix obey it. One rule settles conflicts: the last write that Consul has accepted counts.
// A change takes effect here at once, and is repeated until Consul accepts it; so an order that
// was given during an outage of Consul is written after it, over an earlier one about the same
// peer. A key without an order that can be used changes nothing: the last order that it had
// stays in use. If Consul loses its state, the orders are written again.
package orders
