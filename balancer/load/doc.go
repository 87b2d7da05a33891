// Package load reads the load that peers report, and decides from it which part of the requests each of them gets. It
// is pure: [Utilization] reads a field of an answer, [Steer] turns factors and reports into the next factors.
//
// The reports are those of ORCA (github.com/cncf/xds, xds/data/orca/v3), which gRPC and Envoy know: gRFC A51, gRFC A58,
// and Envoy's source/common/orca.
package load
