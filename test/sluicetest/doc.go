// Package sluicetest runs the program of sluice for examples and tests, with a client of its
// admin API and a load generator.
package sluicetest
