package main

import "slices"

// all returns the faults of every room.
func all() []mutation {
	return slices.Concat(
		adminFaults, balancerFaults, certificatesFaults, cliFaults, configFaults, consulFaults, discoveryFaults,
		doctorFaults, gatewayFaults, healthcheckFaults, observeFaults, operatorFaults, proxyFaults, proxyPartFaults,
		releaseFaults, routeFaults, tagsFaults,
	)
}
