// Package kv watches the instances of a service in the value of a key of Consul's KV store.
// [discovery.ParseValues] defines the value.
//
// # What a value may take out of service
//
// [discovery.Guard] has the rules. An error, an answer that ACLs have filtered, and a
// value that cannot be used change nothing. A value that lacks instances, or a key that is
// absent, is read once more in the mode "consistent", in which a majority of the servers confirms
// that the leader still is the leader. Consul has lost its state if the index of the key goes
// backwards.
package kv
