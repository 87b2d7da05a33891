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
}
