package traefik

// routerTags are those of routers, and those that make no router.
var routerTags = []tagTest{
	{
		`the least`, []string{
			"traefik.http.routers.my-service.rule=Host(`example.com`)",
		},
		[]string{
			`19 {"host":"example.com"}`,
		}, ``,
		[]string{},
	},
	{
		`no router: the default rule`, []string{},
		[]string{
			`11 {"host":"svc"}`,
		}, ``,
		[]string{},
	},
	{
		`keys in any case`, []string{
			"TRAEFIK.HTTP.Routers.Web.Rule=Host(`example.com`)",
		},
		[]string{
			`19 {"host":"example.com"}`,
		}, ``,
		[]string{},
	},
	{
		`priority`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.priority=42`,
		},
		[]string{
			`42 {"host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`priority 0`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.priority=0`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`no priority`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.priority=high`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: want a whole number: the length of the rule counts instead`,
		},
	},
	{
		`entry points`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.entrypoints=web,websecure`,
		},
		[]string{
			`9 {"host":"a","listeners":["web","websecure"]}`,
		}, ``,
		[]string{},
	},
	{
		`tls`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.tls=true`,
			`traefik.http.routers.r.tls.certresolver=myresolver`,
			`traefik.http.routers.r.tls.domains[0].main=example.org`,
			`traefik.http.routers.r.tls.domains[0].sans=test.example.org,dev.example.org`,
		},
		[]string{
			`9 {"host":"a","when":{"scheme":"https"}}`,
		}, ``,
		[]string{
			`0: the listener has the certificates and settings of TLS: ignored`,
			`0: the listener has the certificates and settings of TLS: ignored`,
			`0: the listener has the certificates and settings of TLS: ignored`,
		},
	},
	{
		`no tls`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.tls=false`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`rules of version 2`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.rulesyntax=v2`,
		},
		[]string{}, ``,
		[]string{
			`0: want rules of version 3`,
		},
	},
	{
		`observability`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.observability.accesslogs=true`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`unknown keys`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			"traefik.http.routers.r.ruel=Host(`b`)",
			`traefik.foo.bar=1`,
			`traefik.http.routers.r=1`,
			`traefik.http.routers.r.rule`,
			`traefik.docker.network=x`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: has no value: want KEY=VALUE`,
			`0: unknown key "docker": want http, tcp or enable`,
			`0: unknown key "foo": want http, tcp or enable`,
			`0: unknown key: want http.routers, http.middlewares or http.services, each with .NAME.OPTION`,
			`0: unknown key of a router: ignored; known are rule, priority, entrypoints, middlewares, service, tls, rulesyntax, observability`,
		},
	},
	{
		`a bad rule`, []string{
			"traefik.http.routers.good.rule=Host(`a`)",
			"traefik.http.routers.bad.rule=Host(`a`",
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`39: not a rule: missing ',' before newline in argument list`,
		},
	},
	{
		`one alternative is bad`, []string{
			"traefik.http.routers.r.rule=Host(`a`) || PathRegexp(`b`) && PathRegexp(`c`) && PathRegexp(`d`)",
		},
		[]string{
			`66 {"host":"a"}`,
		}, ``,
		[]string{
			`80: more than two conditions for the path: want one PathRegexp`,
		},
	},
	{
		`the same key twice`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			"traefik.http.routers.r.rule=Host(`b`)",
		},
		[]string{
			`9 {"host":"b"}`,
		}, ``,
		[]string{
			`0: ignored: a later tag of the instance has the same key`,
		},
	},
	{
		`tags of others`, []string{
			`v2`,
			`urlprefix-/x`,
			"traefikx.http.routers.r.rule=Host(`a`)",
		},
		[]string{
			`11 {"host":"svc"}`,
		}, ``,
		[]string{},
	},
}
