// Package etcdtest runs a real etcd for tests and examples: a cluster of one or more members,
// each of them a process that can be killed, stopped, suspended, and given older data.
//
// The program is built once from the pinned version in the nested module etcd, unless the
// environment variable SLUICE_ETCD names one.
package etcdtest
