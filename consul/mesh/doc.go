// Package mesh reads from Consul what a member of its service mesh needs. https://developer.hashicorp.com/consul/docs/connect
//
// [Identity] has the certificate of sluice, and the roots that other members are verified with: one value, so that
// no connection has the one without the other. [Chains] has the discovery chains of the services that sluice asks, and
// [Intentions] whether those let it connect.
package mesh
