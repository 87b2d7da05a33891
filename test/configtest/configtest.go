// Package configtest builds configurations for tests.
package configtest

import (
	"testing"

	"sluice/config"
)

// Build builds the configuration of a file with a text, without flags and environment.
func Build(text string) (*config.Config, error) {
	in := config.Input{File: "sluice.yaml"}
	built, err := in.Build([]config.Source{in.FileSource(text)})
	if err != nil {
		return nil, err
	}
	return built.Config, nil
}

// Must is Build of a text without errors.
func Must(t testing.TB, text string) *config.Config {
	t.Helper()
	c, err := Build(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
