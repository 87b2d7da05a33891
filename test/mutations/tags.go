package main

var tagsFaults = []mutation{
	{
		name: "reserved-host-by-a-claim-of-all-hosts",
		file: "tags/claim/rules.go",
		old:  "case reserved && !named:",
		new:  "case reserved && !found:",
		test: "./tags/claim TestResolve|TestNewRules",
	},
	{
		name: "claim-of-a-path-ends-within-a-segment",
		file: "tags/claim/rules.go",
		old:  `strings.HasPrefix(r.Path, claimed+"/")`,
		new:  "strings.HasPrefix(r.Path, claimed)",
		test: "./tags/claim TestResolve|TestNewRules",
	},
	{
		name: "tag-names-any-authentication-server",
		file: "tags/claim/rules.go",
		old:  "r.ForwardAuth == nil || slices.Contains",
		new:  "r.ForwardAuth != nil || slices.Contains",
		test: "./tags/claim TestForwardAuth",
	},
	{
		name: "holder-of-a-route-loses-it",
		file: "tags/claim/resolve.go",
		old:  "slices.Contains(holders, w.service) }))]",
		new:  "len(holders) < 0 && w != nil }))]",
		test: "./tags/claim TestResolve|TestOldest",
	},
	{
		name: "service-without-a-claim-takes-any-host",
		file: "tags/claim/rules.go",
		old:  `case r.HostRegexp != "" || wide:`,
		new:  `case r.HostRegexp != "" && wide:`,
		test: "./tags/claim TestResolve|TestNewRules",
	},
	{
		name: "tag-names-one-certificate",
		file: "tags/native/read.go",
		old:  `"allow", "deny", "client_certificates", `,
		new:  `"allow", "deny", `,
		test: "./gateway TestActionsOfTags",
	},
	{
		name: "tag-chooses-by-one-certificate",
		file: "tags/native/read.go",
		old:  "\t\"when.client_certificates\", ",
		new:  "\t",
		test: "./gateway TestActionsOfTags",
	},
	{
		name: "tag-lets-in-one-origin",
		file: "tags/native/read.go",
		old:  `"cors.allow_origins", `,
		new:  "",
		test: "./gateway TestActionsOfTags",
	},
	{
		name: "field-of-a-fixed-answer-has-no-dots",
		file: "tags/native/read.go",
		old:  "\t\"direct_response.headers\",\n",
		new:  "",
		test: "./gateway TestActionsOfTags",
	},
	{
		name: "origins-of-traefik-let-nobody-in",
		file: "tags/traefik/headers.go",
		old:  "\te.cors(options)\n",
		new:  "",
		test: "./gateway TestActionsOfTags",
	},
}
