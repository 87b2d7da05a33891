package main

var releaseFaults = []mutation{
	{
		name: "judge-has-the-wrong-direction",
		file: "release/judge/evidence.go",
		old:  "\t\tif canary {\n\t\t\te.logs",
		new:  "\t\tif !canary {\n\t\t\te.logs",
		test: "./release/judge TestEvidenceIsAWagerAtFairOdds|TestWorseCanariesAreRolledBack",
	},
	{
		name: "several-judges-need-no-more-evidence",
		file: "release/judge/release.go",
		old:  "need := enough * float64(max(o.Judges, 1))",
		new:  "need := float64(enough)",
		test: "./release/judge TestFalseRollbacks|TestLook|TestBounds",
	},
	{
		name: "rollback-in-panic",
		file: "release/judge/release.go",
		old:  `why != "" && o.Blind == ""`,
		new:  `why != ""`,
		test: "./release/judge TestLook|TestVerdicts",
	},
	{
		name: "next-step-is-the-same",
		file: "release/judge/release.go",
		old:  "if float64(step) > share {",
		new:  "if float64(step) >= share {",
		test: "./release/judge TestLook",
	},
	{
		name: "share-grows-after-few-requests",
		file: "release/judge/release.go",
		old:  "case inStep < minRequests:",
		new:  "case inStep < minRequests/10:",
		test: "./release/judge TestLook|TestBounds",
	},
	{
		name: "client-of-the-baseline-counts-each-time",
		file: "release/judge/evidence.go",
		old:  "if _, again := s.counted[client]; again {",
		new:  "if _, again := s.counted[client]; again && canary {",
		test: "./release/judge TestAClientCountsOnce",
	},
}
