// Package deploy has files that deploy sluice with compose, Kubernetes and Nomad. Its tests check
// the configurations in them, and test/interop the files, with the parsers of these.
package deploy
