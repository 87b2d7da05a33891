// Package docs has the pages that the program shows.
package docs

import "embed"

// Pages are the pages for users.
//
//go:embed *.md
var Pages embed.FS

// Configuration is the reference of the configuration: a row for each key.
//
//go:embed configuration.md
var Configuration string
