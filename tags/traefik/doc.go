// Package traefik reads the tags by which services announce routes to Traefik 3:
//
//	traefik.http.routers.NAME.rule=Host(`example.com`) && PathPrefix(`/api`)
//
// Names of routers, middlewares and services belong to the instance: no tag reaches another
// one. Differences from Traefik are in docs/migration.md#from-traefik.
package traefik
