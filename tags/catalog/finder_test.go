package catalog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"sluice/consul"
	consulsource "sluice/discovery/consul"
	"sluice/test/configtest"
	"sluice/test/discoverytest"
	"sluice/test/verify"
)

// The catalog is watched again after Stop, and after Pause and Resume, with the services that were
// found before. While it is paused, nothing begins a watch.
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
	finds := func() {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatal("no service is found")
		}
		got := f.Addition(c).Services
		verify.Require(t, len(got) == 1, "found %v, want star", got)
	}
	for range 2 {
		f.Follow(t.Context(), c)
		f.Follow(t.Context(), c) // without effect
		finds()
		f.Stop()
	}
	f.Pause()
	f.Follow(t.Context(), c)
	verify.Equal(t, len(begun), 2, "watches, and it is paused")
	f.Resume()
	finds()
	f.Pause()
	f.Resume()
	f.Resume() // without effect
	finds()
	verify.That(t, len(begun) == 4 && len(begun[0]) == 0, "the watches begin with %v", begun)
	for _, known := range begun[1:] {
		verify.That(t, slices.ContainsFunc(known, func(s consulsource.CatalogService) bool { return s.Name == "star" }), "the watches begin with %v", begun)
	}
}

// The configuration is applied again for other services, and not for other tags of theirs, which
// need routes only where instances have them: see Gate.
func TestFinderTellsOfOtherServices(t *testing.T) {
	found := func(names string, tags ...string) (all []consulsource.CatalogService) {
		for name := range strings.FieldsSeq(names) {
			all = append(all, consulsource.CatalogService{Name: name, Tags: tags})
		}
		return all
	}
	changes := 0
	f := NewFinder(nil, func() { changes++ }, zerolog.Nop())
	for _, step := range []struct {
		services []consulsource.CatalogService
		want     int
	}{
		{nil, 1}, // the first answer
		{found("star", "urlprefix-h/"), 2},
		{found("star", "urlprefix-i/"), 2},
		{found("moon star", "urlprefix-i/"), 3},
		{found("moon", "urlprefix-i/"), 4},
	} {
		f.found(step.services)
		verify.Equal(t, changes, step.want, "requests to apply the configuration with %v", step.services)
		services, _ := f.Services()
		verify.DeepEqual(t, services, step.services, "the services")
	}
}

// What a process has from another one, and no answer of Consul has confirmed yet, a third one has
// too.
func TestFinderPassesOnWhatItHasBeenGiven(t *testing.T) {
	c := configtest.Must(t, "catalog: { tags: [fabio] }")
	given := []consulsource.CatalogService{{Name: "star", Tags: []string{"urlprefix-h/"}}}
	state := &State{"another selection", given}
	for range 2 {
		f := NewFinder(nil, nil, zerolog.Nop())
		f.Restore(c, state, nil)
		services, _ := f.Services()
		verify.That(t, len(services) == 1 && services[0].Name == "star", "the services are %v", services)
		select {
		case <-f.Used():
			t.Error("they are all that there is, without an answer of Consul")
		default:
		}
		state = f.Save(c)
	}
}
