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
// the prefix obey it: see package sharedkeys. So an order that was given during an outage of Consul
// is written after it, over an earlier one about the same peer. If Consul loses its state, the orders
// stay, and are written again.
package orders
