// Package structure reads the source of sluice: which package imports which, how large they are,
// where goroutines begin and locks end. It is a package of its own so that its tests link nothing
// else.
package structure
