// Package mesh reads from Consul what a member of its service mesh needs: the discovery chains of the services that it
// asks. https://developer.hashicorp.com/consul/docs/connect
package mesh
