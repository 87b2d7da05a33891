// Package etcd watches the instances of a service in etcd: the keys below a prefix, or one key.
// Package client follows the keys; [discovery.ParseValue] defines their values.
//
// # What etcd may take out of service
//
// [discovery.Guard] has the rules. An error changes nothing. A deleted key, and one
// whose lease has expired, needs no confirmation: the events of a watch are committed and in
// order, and a list is linearizable. A cluster has lost its state if it is at a lower revision
// than before, has another id, or has an older value of a key.
//
// A value that cannot be used leaves the last usable one of its key in use.
package etcd
