package main

var gatewayFaults = []mutation{
	{
		name: "process-that-does-not-serve-writes",
		file: "operator/ownership.go",
		old:  "\tif o.owns {\n\t\tf()\n\t}\n",
		new:  "\tf()\n",
		test: "./gateway TestOldProcessDoesNotWriteTheSnapshot|TestANewProcessThatFailsWritesNothing",
	},
	{
		name: "replaced-process-looks-once-what-it-needs",
		file: "gateway/run.go",
		old:  "\t\talways(func(ctx context.Context) { every(ctx, neededEvery, g.upgrade.followOn) })",
		new:  "\t\tg.upgrade.followOn()",
		test: "./gateway TestUpgradeLosesNoRequestOfAKeptConnection",
	},
	{
		name: "takeover-does-not-wait-for-issuers",
		file: "gateway/run.go",
		old:  "\t\tg.routes.Load().AwaitKeys(ctx, patience())",
		new:  "\t\tg.routes.Load().AwaitKeys(ctx, g.waits.start)",
		test: "./gateway TestTokensOfANewIssuerInANewProcess",
	},
	{
		name: "readiness-waits-for-a-chain-that-cannot-be-used",
		file: "gateway/chains.go",
		old:  "why, refused = s.wrong.Error(), true",
		new:  "why = s.wrong.Error()",
		test: "./gateway TestUnusableChainFromTheStart",
	},
	{
		name: "readiness-waits-for-a-chain-that-consul-refuses",
		file: "gateway/chains.go",
		old:  "why, refused := \"no answer from Consul\", known.Refused",
		new:  "why, refused := \"no answer from Consul\", false",
		test: "./gateway TestDiscoveryChainsWithoutTheRight",
	},
}
