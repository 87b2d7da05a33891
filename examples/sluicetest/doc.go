// Package sluicetest runs sluice's own program for examples and their tests:
// a process like any user's, its admin API, and a steady load on it.
package sluicetest
