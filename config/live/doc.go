// Package live contains the sources of configuration documents: files, Consul's KV
// store, and etcd. A source is followed, and every report is everything that it says: one set of
// documents at one time, which package config validates as a whole.
//
// A source never reports that it is empty if it does not know what it says. After a failure
// it reports the error; what it has said before stays in use.
package live
