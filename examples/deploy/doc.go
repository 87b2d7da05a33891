// Package deploy has files that deploy sluice with compose, Kubernetes and Nomad. Its tests check
// them as far as that is possible without these.
package deploy
