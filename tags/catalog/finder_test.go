package catalog

import (
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	consulsource "sluice/discovery/consul"
	"sluice/test/configtest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// The catalog is watched again after Stop, with the services that were found before.
func TestFinderFollowsAgain(t *testing.T) {
	agent := discoverytest.Start(t)
	star := discoverytest.Instance("star", "star-1", 80)
	star.Service.Tags = []string{"urlprefix-h/"}
	agent.Set("star", star)
	client := verify.Result(consul.New(consul.Options{Addresses: []string{agent.URL()}, Log: zerolog.Nop()})).Must(t)
	defer client.Close()
	c := configtest.Must(t, "catalog: { tags: [fabio] }")
	sources := consulsource.NewSources(client, zerolog.Nop())
	changed := make(chan struct{}, 1)
	var begun [][]consulsource.CatalogService // the services that each watch begins with
	f := NewFinder(func(s consulsource.Selection, known ...consulsource.CatalogService) *consulsource.Catalog {
		begun = append(begun, known)
		return sources.Catalog(s, known...)
	}, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}, zerolog.Nop())
	defer f.Stop()
	for range 2 {
		f.Follow(t.Context(), c)
		f.Follow(t.Context(), c) // without effect
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatal("no service is found")
		}
		got := f.Fragment(c).Services
		verify.Require(t, len(got) == 1, "found %v, want star", got)
		f.Stop()
	}
	verify.That(t, len(begun) == 2 && len(begun[0]) == 0 && slices.ContainsFunc(begun[1], func(s consulsource.CatalogService) bool { return s.Name == "star" }), "the watches begin with %v", begun)
}
