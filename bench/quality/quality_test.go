//go:build linux

package main

import (
	"io"
	"slices"
	"testing"

	"sluice/bench/quality/scenario"
	"sluice/test/long"
	"sluice/test/verify"
)

const testSeed = 1

// short runs a scenario for proxies side by side. If the machine has no time for it, the test is
// skipped.
func short(t *testing.T, name string, group ...proxy) (*play, []outcome) {
	t.Helper()
	b := &bench{programs: newPrograms(t.TempDir()), seed: testSeed, progress: io.Discard}
	all := plays(testSeed, scenario.Short)
	p := all[slices.IndexFunc(all, func(p *play) bool { return p.name == name })]
	p.draw()
	outcomes := verify.Result(b.runUndisturbed(t.Context(), p, group)).Must(t)
	for _, o := range outcomes {
		t.Logf("seed %d, %s: %v", testSeed, o.Proxy, o)
	}
	if slices.ContainsFunc(outcomes, outcome.disturbed) {
		t.Skip("the machine has no time for requests at their times")
	}
	for _, o := range outcomes {
		verify.That(t, o.Error == "" && o.Requests > 0 && o.Wrong == 0 && o.Failed <= o.Requests/100,
			"%s: %s: %d failed and %d wrong of %d", o.Proxy, o.Error, o.Failed, o.Wrong, o.Requests)
	}
	return p, outcomes
}

func TestTheDefaultAvoidsASlowPeer(t *testing.T) {
	long.Test(t)
	p, outcomes := short(t, "one-slow-constant", proxy{name: "sluice", program: "sluice"})
	verify.That(t, outcomes[0].Share <= 0.5/float64(len(p.Peers)), "the slow peer has %.1f %% of the requests", 100*outcomes[0].Share)
}

func TestTheDefaultFindsFreeSlots(t *testing.T) {
	long.Test(t)
	_, outcomes := short(t, "bimodal-by-route-constant", proxy{name: "sluice", program: "sluice"}, proxy{name: "random", program: "sluice", policy: "random"})
	verify.That(t, outcomes[0].Needless <= 0.75*outcomes[1].Needless, "%.1f %% wait needlessly, by chance %.1f %%", 100*outcomes[0].Needless, 100*outcomes[1].Needless)
}
