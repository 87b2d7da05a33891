// Package docs has the pages that the program shows.
package docs

import _ "embed"

// Configuration is the reference of the configuration: a row for each key.
//
//go:embed configuration.md
var Configuration string
