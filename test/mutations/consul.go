package main

var consulFaults = []mutation{
	{
		name: "index-that-goes-backwards-is-kept",
		file: "consul/follow.go",
		old:  "if f.loop.Advance(a.Index) && f.Regressed",
		new:  "if before := f.loop.Last; f.loop.Advance(max(a.Index, before)) && f.Regressed",
		test: "./consul TestFollowReportsLossOfState",
	},
	{
		name: "last-connection-is-held-for-long",
		file: "consul/gate.go",
		old:  "case g.used > g.limit-max(1, g.limit/16):",
		new:  "case g.used > g.limit-g.limit/16:",
		test: "./consul TestFewConnectionsServeManyLoops",
	},
	{
		name: "long-queries-to-an-agent-with-few-connections",
		file: "consul/gate.go",
		old:  "case !view && g.limit < g.most:",
		new:  "case !view && g.limit < 0:",
		test: "./discovery/consul TestAgentWithFewConnections",
	},
	{
		name: "key-that-was-not-asked-for-is-used",
		file: "consul/kv.go",
		old:  "if !a.keys.has(k.Key) {",
		new:  "if false {",
		test: "./discovery/kv TestHostileValues",
	},
	{
		name: "key-of-etcd-that-was-not-asked-for-is-used",
		file: "discovery/etcd/client/follow.go",
		old:  "if !f.options.Range.has(kv.GetKey()) {",
		new:  "if false {",
		test: "./discovery/etcd/client TestHostileAnswers",
	},
	{
		name: "error-of-a-blocking-query-keeps-its-index",
		file: "consul/loop.go",
		old:  "\t\tl.Index = 0\n\t\tl.failedAt",
		new:  "\t\tl.failedAt",
		test: "./consul TestFollowReportsErrorsFromTheSecondOn|TestCutBlockingQueryIsNotRepeatedWithItsIndex",
	},
	{
		name: "new-token-is-not-used",
		file: "consul/query.go",
		old:  "if now := c.token.current(); now != q.Token {",
		new:  `if now := c.token.current(); now == "" {`,
		test: "./discovery/consul TestWatchRecoversAfterTheReplacementOfARevokedToken|TestTokenReplacedBeforeItsRevocationCausesNoError",
	},
	{
		name: "answer-without-a-leader-is-believed",
		file: "consul/query.go",
		old:  "case !a.KnownLeader && !a.Streaming:",
		new:  "case !a.KnownLeader && a.Streaming && a.Index == 0:",
		test: "./discovery/consul TestErrorsKeepTheInstances",
	},
	{
		name: "proposal-overwrites-a-later-change",
		file: "consul/sharedkeys/keys.go",
		old:  "changed := func(_ V, index uint64) bool { return index != last }",
		new:  "changed := func(_ V, index uint64) bool { return index < last }",
		test: "./consul/sharedkeys TestKeys/proposals",
	},
	{
		name: "lost-state-is-not-written-again",
		file: "consul/sharedkeys/follow.go",
		old:  "\t\t\tk.restoreLocked(now)\n",
		new:  "",
		test: "./consul/sharedkeys TestConsulBeginsAnew|TestANewConsulGetsTheMarkLast",
	},
}
