// Package operator keeps what operators have ordered: drains of peers, weights in place of the
// registry's, and maintenances of services. An order lasts until it is ended or expires. Whether
// what it is about exists does not matter.
//
//	peers := operator.New(operator.Options{Backing: files, Changed: apply})
//	err := peers.Open()                   // reads the file
//	peers.Resume()                        // follows Consul
//	err = peers.Give(operator.Order{Kind: operator.Drain, Node: "n1", Why: "new disks"})
//	found, err := peers.End(key, "root")
//
// A Store keeps orders of one kind. Peers is the one about peers; package release has another one
// with shares.
//
// # The file
//
// With a path the orders are in a file when Put, Give and End return, so they survive a restart.
// A damaged file is not used, and is renamed to ….damaged.
//
// # The owner
//
// Of two processes, one of which replaces the other, only the one that serves takes orders and
// writes them, to the file and to Consul. The other one follows what Consul has. An order that the
// old process has accepted is in its State, which the new one adopts; the others get ErrTakeover.
//
// # Replicas
//
// With a prefix each order is also a key of Consul's KV store, and all replicas that follow
// the prefix obey it: see package sharedkeys. So an order that was given during an outage of Consul
// is written after it, over an earlier one with the same key. If Consul loses its state, the orders
// stay, and are written again.
package operator
