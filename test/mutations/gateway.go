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
}
