//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"sluice/test/pinned"
)

// caddy is the peer with HTTP/3: neither nginx nor HAProxy of Debian 12 has it.
var caddy = pinned.Program{
	Name: "caddy", Title: "Caddy", Module: "github.com/caddyserver/caddy/v2",
	Package: "github.com/caddyserver/caddy/v2/cmd/caddy", Dir: "bench/caddy",
}

// buildCaddy builds Caddy once for all runs.
func buildCaddy(ctx context.Context, progress io.Writer) (path, version string, err error) {
	if path, err = caddy.Binary(ctx, progress); err != nil {
		return "", "", fmt.Errorf("build Caddy: %w", err)
	}
	if version, err = caddy.Version(ctx); err != nil {
		return "", "", err
	}
	return path, "Caddy " + strings.TrimPrefix(version, "v"), nil
}

func caddyCommand(binary string) func(settings) ([]string, error) {
	return func(s settings) ([]string, error) {
		path, err := s.render(caddyFile)
		if err != nil {
			return nil, err
		}
		return []string{binary, "run", "--adapter", "caddyfile", "--config", path}, nil
	}
}

const caddyFile = "caddyfile.conf"
