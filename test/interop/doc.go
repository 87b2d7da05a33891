// Package interop runs the interoperability cases of gRPC through sluice, and reads the files of
// examples/deploy as compose, Kubernetes and Nomad do. It is a module of its own, because these
// have many dependencies.
package interop
