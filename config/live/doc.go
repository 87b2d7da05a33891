// Package live keeps the documents of the configuration: what they say now, which of them are used,
// and which were used before.
//
// A [Manager] does that; it knows nothing of what a configuration changes. A [Source] is followed:
// files, Consul's KV store, or etcd. Every report is everything that it says: one set of documents
// at one time, which package config validates as a whole.
//
// A source never reports that it is empty if it does not know its documents. After a failure it
// reports the error; what it has said before stays in use. A [Memory] decides what a report
// removes.
package live
