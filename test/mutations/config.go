package main

var configFaults = []mutation{
	{
		name: "document-reads-any-key",
		file: "config/rights.go",
		old:  `{"services.NAME.consul_kv", "*", 0, nil}`,
		new:  `{"services.NAME.consul_kv", "*", ByDocument, nil}`,
		test: "./config TestReferenceNamesEveryKeyAndDefault|TestNobodySetsMoreThanTheTableAllows",
	},
	{
		name: "tag-says-who-the-client-is",
		file: "config/rights.go",
		old:  `{"routes[].request_headers", "set add remove", byRoutes, noIdentity}`,
		new:  `{"routes[].request_headers", "set add remove", byRoutes, nil}`,
		test: "./config TestReferenceNamesEveryKeyAndDefault|TestNobodySetsMoreThanTheTableAllows",
	},
	{
		name: "document-leads-to-a-unix-socket",
		file: "config/rights.go",
		old:  `{"services.NAME", "peers", ByDocument, noSocket}`,
		new:  `{"services.NAME", "peers", ByDocument, nil}`,
		test: "./config TestReferenceNamesEveryKeyAndDefault|TestNobodySetsMoreThanTheTableAllows",
	},
	{
		name: "document-has-variables",
		file: "config/decoding/decoder.go",
		old:  "return &Decoder{schema: s, file: file, origins: make(map[*yaml.Node]string)}",
		new:  "return &Decoder{schema: s, file: file, origins: make(map[*yaml.Node]string), Getenv: func(name string) string { return name }}",
		test: "./config TestDocumentsHaveNoVariables",
	},
	{
		name: "variable-is-shown",
		file: "config/decoding/variables.go",
		old:  "\tif fromVariables {\n\t\td.variables",
		new:  "\tif fromVariables && text == \"\" {\n\t\td.variables",
		test: "./config TestVariablesAreNotShown",
	},
	{
		name: "last-document-disappears-at-once",
		file: "config/live/memory.go",
		old:  "mayBeLost := r.Forgot || len(said.Documents) == 0 && !r.Deleted",
		new:  "mayBeLost := r.Forgot",
		test: "./config/live TestMemory",
	},
	{
		name: "lost-document-stays-for-ever",
		file: "config/live/memory.go",
		old:  "if !already && mayBeLost {",
		new:  "if already || mayBeLost {",
		test: "./config/live TestMemory",
	},
	{
		name: "chain-wins-over-the-timeouts-of-the-route",
		file: "config/routes/chain.go",
		old:  `withSettings(withSettings(service, branch), r)`,
		new:  `withSettings(withSettings(service, r), branch)`,
		test: "./config/routes TestRoutesToAServiceWithAChain",
	},
	{
		name: "chain-for-a-route-with-a-group",
		file: "config/routes/chain.go",
		old:  `configured == nil || r.Group != "" ||`,
		new:  `configured == nil ||`,
		test: "./config/routes TestRoutesToAServiceWithAChain",
	},
	{
		name: "route-with-actions-shares-a-plain-router",
		file: "config/routes/chain.go",
		old:  `plain := actions == nil && r.Mirror`,
		new:  `plain := r.Mirror`,
		test: "./config/routes TestRoutesToAServiceWithAChain",
	},
}
