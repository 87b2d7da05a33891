package main

var cliFaults = []mutation{
	{
		name: "control-characters-reach-the-terminal",
		file: "cli/terminal/text.go",
		old:  "if r < ' ' || r >= 0x7f && r < 0xa0 ||",
		new:  "if r >= 0x7f && r < 0xa0 ||",
		test: "./cli TestPeersTable|TestEventsAsLines",
	},
	{
		name: "misspelt-order-is-sent",
		file: "cli/ready.go",
		old:  "args[0] != \"on\" && args[0] != \"off\"",
		new:  "args[0] == \"\"",
		test: "./cli TestWrongCommandLines",
	},
	{
		name: "roll-waits-for-its-own-replica-only",
		file: "cli/order_peer.go",
		old:  "if !m.Self && f(&p) {",
		new:  "if m.Self && f(&p) {",
		test: "./cli TestRollWithTwoReplicas",
	},
	{
		name: "roll-believes-the-first-passing-check",
		file: "cli/roll/instance.go",
		old:  "time.Since(since) >= settle",
		new:  "time.Since(since) >= 0",
		test: "./cli/roll TestVerdicts",
	},
	{
		name: "roll-of-a-bad-version-ends-its-drain",
		file: "cli/roll/instance.go",
		old:  "errors.Is(err, errWorse)",
		new:  "errors.Is(err, errNobodyLeft)",
		test: "./cli/roll TestVerdicts",
	},
	{
		name: "roll-passes-a-command-of-a-registrant-on",
		file: "cli/roll/plan.go",
		old:  "if !harmless.MatchString(value) {",
		new:  "if value == \"\" {",
		test: "./cli/roll TestCommandOfAnInstance",
	},
}
