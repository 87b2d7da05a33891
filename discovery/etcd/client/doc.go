// Package client follows keys in etcd. [Cluster.Follow] lists the keys of a prefix, watches them
// from the revision of the list, and passes on every state of them in order:
//
//	list (linearizable) ── View ──► Read        at the start and after every end of the watch
//	watch, from the list's revision + 1 ── View ──► Read     after each change
//	heartbeat, every 15 s ── the same View ──► Read, or an error
//	list, every 5 min
//
// The heartbeat is necessary because the client reconnects in silence: a watch whose server is
// frozen or gone, whose user has lost its permission, or whose cluster was restored from a backup
// and is at a lower revision, looks like one without changes. A list now and then repairs what a
// faulty server has not sent.
//
// The watch requires a leader, so that a server that is cut off from the others ends it.
//
// A list and a heartbeat are linearizable: a majority of the members has confirmed the leader. So
// a key that a list lacks is deleted, its lease has expired, or the cluster has lost its state;
// [View].Forgot tells the last case.
package client
