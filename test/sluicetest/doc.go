// Package sluicetest runs the program of sluice for examples and tests, with a client of its
// admin API, a load generator, and the stage of examples.
package sluicetest
