package main

var healthcheckFaults = []mutation{
	{
		name: "ejection-of-the-last-peer",
		file: "healthcheck/eject.go",
		old:  "ejected+1 <= allowed && ejected+1 < peers",
		new:  "ejected+1 <= allowed",
		test: "./healthcheck TestMaxEjected",
	},
	{
		name: "one-ejection-more-than-allowed",
		file: "healthcheck/eject.go",
		old:  "ejected+1 <= allowed && ejected+1 < peers",
		new:  "ejected <= allowed && ejected+1 < peers",
		test: "./healthcheck TestMaxEjected",
	},
	{
		name: "ejection-time-does-not-grow",
		file: "healthcheck/eject.go",
		old:  "r.times = max(r.times-good, 0) + 1",
		new:  "r.times = 1 + 0*good",
		test: "./healthcheck TestEjectionTimeGrowsAndDecays",
	},
	{
		name: "peers-stay-ejected-if-no-other-is-left",
		file: "healthcheck/checker.go",
		old:  "if len(s.Eligible) == 0 {",
		new:  "if len(s.All) == 0 {",
		test: "./healthcheck TestEjectedPeersReturnIfNoOtherIsLeft",
	},
	{
		name: "outlier-above-the-absolute-limit",
		file: "healthcheck/outlier.go",
		old:  "a.rate() >= min(limit, s.Below)",
		new:  "a.rate() >= limit",
		test: "./healthcheck TestSuccessRateOutliers",
	},
	{
		name: "outlier-by-latency-under-the-least-one",
		file: "healthcheck/outlier.go",
		old:  "max(time.Duration(l.Factor*float64(typical)), l.Above)",
		new:  "time.Duration(l.Factor * float64(typical))",
		test: "./healthcheck TestLatencyOutliers",
	},
	{
		name: "one-failed-check-fewer-than-the-threshold",
		file: "healthcheck/state.go",
		old:  "j.contrary >= threshold {",
		new:  "j.contrary+1 >= threshold {",
		test: "./healthcheck TestThresholds|TestUnhealthyAndBack",
	},
	{
		name: "one-passed-check-forgets-no-failure",
		file: "healthcheck/state.go",
		old:  "\tif passed != j.down {\n\t\tj.contrary = 0\n",
		new:  "\tif passed != j.down {\n",
		test: "./healthcheck TestThresholds",
	},
}
