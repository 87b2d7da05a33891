package claim

import (
	"strings"
	"testing"

	"sluice/test/verify"
)

// An instance asks in the dialects that are read, with their settings.
func TestDialectsThatAreRead(t *testing.T) {
	const (
		native  = " sluice.route=own"
		fabio   = " urlprefix-fabio/ mine-mine/"
		traefik = " traefik.http.routers.r.rule=Host(`traefik`)"
		edge    = " edge.enable=true edge.http.routers.e.rule=Host(`edge`)"
	)
	for catalog, want := range map[string]string{
		"tags: [sluice], traefik: { exposed: true }": "star own/",
		"tags: [fabio]": "star fabio/",
		"tags: [fabio], fabio: { prefix: mine- }":                                 "star mine/",
		"tags: [traefik]":                                                         "",
		"tags: [traefik], traefik: { exposed: true }":                             "star traefik/ priority=15",
		"tags: [traefik], traefik: { prefix: edge }":                              "star edge/ priority=12",
		"tags: [traefik], traefik: { prefix: moon, default_rule: 'Host(`moon`)'}": "star moon/ priority=12",
		"tags: [sluice, fabio, traefik], traefik: { exposed: true }":              "star fabio/,star own/,star traefik/ priority=15",
	} {
		r := resolveDefault(t, "catalog: { "+catalog+" }", "star star-1 1 moon.enable=true"+native+fabio+traefik+edge)
		verify.Equal(t, strings.Join(lines(r), ","), want, "%s: problems %+v", catalog, r.Problems)
	}
}
