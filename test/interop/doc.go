// Package interop runs the interoperability cases of gRPC through sluice. It is a module of its
// own, because they have many dependencies.
package interop
