// Package deploy has files that deploy sluice with compose and Kubernetes. Its test checks them
// as far as that is possible without these.
package deploy
