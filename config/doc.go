// Package config holds what an operator can set: the types of the
// configuration file with their defaults and limits, a strict loader, a
// watcher of the file and the history of what was applied.
//
// A configuration is loaded in one way, whatever it comes from. The file is
// parsed into a YAML tree; environment variables and flags are written into
// that tree; the tree is decoded into a [Config] and checked. A mistake never
// stops the loader: it returns every one at once, each with the place it
// stands at, the key, the value and what is allowed instead.
//
//	sluice.yaml:7: services.star.timeouts.connect: value "5": want a duration with a unit (ms, s, m, h), from 1ms to 10m
//
// Precedence, from strongest to weakest: flag, environment, file, default.
//
// A new key is one field of one struct in config.go: its tag names the key,
// the default and the limits, its comment says what it does. The reference in
// docs/configuration.md is checked against these tags by a test.
//
// A [Config] is a value like any other: once loaded, nobody changes it.
package config
