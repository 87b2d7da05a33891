// Package config contains the keys of the configuration file with their defaults and
// limits, a strict loader, a watcher of the file, and the history of applied
// configurations.
//
// The file is parsed into a YAML tree. Environment variables and flags are written into
// the tree, which is then decoded into a [Config] and checked. The loader reports all
// errors at once, each with the place, the key, the value and what is allowed:
//
//	sluice.yaml:7: services.star.timeouts.connect: value "5": want a duration with a unit (ms, s, m, h), from 1ms to 10m
//
// Precedence: flag, environment, file, default.
//
// A key is a field of a struct, most of them in config.go. Its tag contains the key, the
// default and the limits. A test compares docs/configuration.md with these tags.
//
// A [Config] does not change after it is loaded.
package config
