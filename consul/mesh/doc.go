// Package mesh reads what a member of Consul's service mesh needs:
// https://developer.hashicorp.com/consul/docs/connect
//
// [Identity] has sluice's certificate and the roots that verify other members: one value,
// so no connection has one without the other. [Chains] has the discovery chains of services,
// and [Intentions] says whether they let sluice connect.
package mesh
