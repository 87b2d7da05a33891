// Package fabio reads the tags by which services announce routes to fabio:
//
//	urlprefix-HOST/PATH OPTION …
//
// https://fabiolb.net/quickstart/ describes them. Differences are in docs/migration.md#from-fabio.
package fabio
