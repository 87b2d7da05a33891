// Package migration rehearses the move from another load balancer to sluice, with the real
// programs. fabio and Traefik get the same services with the same tags from the same Consul as
// sluice, and each request goes to both. It is a module of its own, because fabio and Traefik are
// built first, once per user and version, which takes minutes. nginx and HAProxy are Debian's
// packages of these names.
package migration
