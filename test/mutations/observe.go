package main

var observeFaults = []mutation{
	{
		name: "latency-in-the-next-bucket",
		file: "observe/metrics/buckets.go",
		old:  "if ns > bounds[i] {",
		new:  "if ns >= bounds[i] {",
		test: "./observe/metrics TestBucketsHoldTheirUpperBound",
	},
	{
		name: "client-that-left-counts-as-4xx",
		file: "observe/metrics/class.go",
		old:  "|| status == StatusClientClosedRequest {",
		new:  "{",
		test: "./observe/metrics TestClassOf",
	},
	{
		name: "panic-gives-nothing-back",
		file: "observe/panics/panics.go",
		old:  "\tif fail != nil {\n",
		new:  "\tif fail != nil && Fatal.Load() {\n",
		test: "./observe/panics TestContain",
	},
	{
		name: "event-is-told-twice",
		file: "observe/events/feed.go",
		old:  "r.position = min(after.Number, end)",
		new:  "r.position = min(max(after.Number, 1)-1, end)",
		test: "./observe/events TestFeedResumesAfterAnEvent",
	},
	{
		name: "sampled-flag-is-lost",
		file: "observe/tracing/context.go",
		old:  "flags[0]&flagSampled != 0",
		new:  "flags[0] == flagSampled",
		test: "./observe/tracing TestParseTraceparent",
	},
}
