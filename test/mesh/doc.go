// Package mesh tests all of sluice in the service mesh of a real Consul, under load.
package mesh
