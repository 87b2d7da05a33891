package main

var gatewayFaults = []mutation{
	{
		name: "process-that-does-not-serve-writes",
		file: "gateway/ownership.go",
		old:  "\tif o.owns {\n\t\tf()\n\t}\n",
		new:  "\tf()\n",
		test: "./gateway TestOldProcessDoesNotWriteTheSnapshot|TestANewProcessThatFailsWritesNothing",
	},
	{
		name: "failures-of-the-baseline-count-for-the-canary",
		file: "gateway/trial.go",
		old:  "t.release.Failed(client, a == &t.canary, t.share)",
		new:  "t.release.Failed(client, a != &t.canary, t.share)",
		test: "./gateway TestJudgeRollsBack",
	},
}
