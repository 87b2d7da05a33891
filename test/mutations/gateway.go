package main

var gatewayFaults = []mutation{
	{
		name: "process-that-does-not-serve-writes",
		file: "operator/ownership.go",
		old:  "\tif o.owns {\n\t\tf()\n\t}\n",
		new:  "\tf()\n",
		test: "./gateway TestOldProcessDoesNotWriteTheSnapshot|TestANewProcessThatFailsWritesNothing",
	},
}
