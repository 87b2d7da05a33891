package main

var adminFaults = []mutation{
	{
		name: "any-token-is-accepted",
		file: "admin/authorization.go",
		old:  `subtle.ConstantTimeCompare(a[:], b[:]) == 1 && token != ""`,
		new:  `subtle.ConstantTimeCompare(a[:], a[:]) == 1 && len(b) > 0 && token != ""`,
		test: "./admin TestTokenGuardsAllButHealthAndThePage",
	},
	{
		name: "no-text-is-a-token",
		file: "admin/authorization.go",
		old:  `== 1 && token != ""`,
		new:  "== 1",
		test: "./admin TestNoTokenIsNoText",
	},
	{
		name: "token-for-looking-gives-orders",
		file: "admin/authorization.go",
		old:  "case !open && given < need:",
		new:  "case !open && given < scopeLook:",
		test: "./admin TestTokenForLooking",
	},
	{
		name: "name-of-another-site-needs-no-token",
		file: "admin/authorization.go",
		old:  "case open && !isLiteral(r.Host):",
		new:  `case open && r.Host == "":`,
		test: "./admin TestHostsThatNeedNoToken|TestOtherSitesGetNothingWithoutAToken",
	},
	{
		name: "silent-replica-loses-its-part-of-limits",
		file: "admin/fleet/limits.go",
		old:  "case !o.gone():",
		new:  "case false:",
		test: "./admin/fleet TestMissingReplicas",
	},
	{
		name: "dead-replica-keeps-its-part-of-limits",
		file: "admin/fleet/limits.go",
		old:  `return o.Status == "critical" || o.Status == unregistered || errors.Is(o.err, errRefused)`,
		new:  "return false",
		test: "./admin/fleet TestMissingReplicas",
	},
	{
		name: "replica-that-consul-loses-is-gone",
		file: "admin/fleet/limits.go",
		old:  "if !again && o.missing",
		new:  "if again && o.missing",
		test: "./admin/fleet TestLimitsAfterLossInConsul",
	},
	{
		name: "replica-without-a-round-has-the-first-seed",
		file: "admin/fleet/limits.go",
		old:  "{{ended: time.Now(), seed: seed}}",
		new:  "{{ended: time.Now()}}",
		test: "./admin/fleet TestReplicasExchangeCounts",
	},
	{
		name: "order-for-any-time",
		file: "admin/drain.go",
		old:  "d < time.Second || d > maxFor",
		new:  "d < 0 || d > maxFor",
		test: "./admin TestAWeightInPlaceOfTheRegistrys",
	},
	{
		name: "recent-is-all-that-is-kept",
		file: "admin/series/series.go",
		old:  "uint64(time.Minute/Interval)",
		new:  "Length",
		test: "./admin/series TestOldSamplesAreForgotten",
	},
}
