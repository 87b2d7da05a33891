package traefik

// streamTags are those of routers and middlewares for TCP.
var streamTags = []tagTest{
	{
		`the example of the documentation`, []string{
			"traefik.tcp.routers.my-router.rule=HostSNI(`example.com`)",
			`traefik.tcp.routers.my-router.tls=true`,
			`traefik.tcp.services.my-service.loadbalancer.server.port=4123`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice does not end TLS of connections for TCP: want tls.passthrough=true, and the certificate at the instances`,
		},
	},
	{
		`passthrough`, []string{
			"traefik.tcp.routers.my-router.rule=HostSNI(`example.com`)",
			`traefik.tcp.routers.my-router.tls=true`,
			`traefik.tcp.routers.my-router.tls.passthrough=true`,
			`traefik.tcp.services.my-service.loadbalancer.server.port=80`,
		},
		[]string{
			`tls 22 {"host":"example.com"}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`passthrough alone`, []string{
			"traefik.tcp.routers.db.rule=HostSNI(`db.example.com`)",
			`traefik.tcp.routers.db.entrypoints=postgres`,
			`traefik.tcp.routers.db.tls.passthrough=true`,
		},
		[]string{
			`tls 25 {"host":"db.example.com","listeners":["postgres"]}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`every connection`, []string{
			"traefik.tcp.routers.mytcprouter.rule=HostSNI(`*`)",
			`traefik.tcp.routers.mytcprouter.entrypoints=ep1,ep2`,
			`traefik.tcp.routers.mytcprouter.service=svc`,
		},
		[]string{
			`tcp -1 {"listeners":["ep1","ep2"]}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`every TLS connection`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{
			`tls -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`every TLS connection, with a priority`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
			`traefik.tcp.routers.r.priority=42`,
		},
		[]string{
			`tls 42 {}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`several hosts`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`a.example.com`) || HostSNI(`B.example.com`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{
			`tls 52 {"host":"a.example.com"}`,
			`tls 52 {"host":"b.example.com"}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`several hosts as in version 2`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`a`, `b`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{
			`tls 17 {"host":"a"}`,
			`tls 17 {"host":"b"}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`HostSNIRegexp`, []string{
			"traefik.tcp.routers.r.rule=HostSNIRegexp(`^.+\\.example\\.com$`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{
			`tls 35 {"host_regexp":"^.+\\.example\\.com$"}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`HostSNIRegexp of version 2`, []string{
			"traefik.tcp.routers.r.rule=HostSNIRegexp(`{sub:[a-z]+}.example.com`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{}, ``,
		[]string{
			"28: HostSNIRegexp: placeholders are of version 2: want `^(?:[a-z]+)\\.example\\.com$`",
		},
	},
	{
		`a host without TLS`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`example.com`)",
		},
		[]string{}, ``,
		[]string{
			"28: clients without TLS ask for no server name: want HostSNI(`*`), or tls.passthrough=true",
		},
	},
	{
		`tls=false`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.tls=false`,
		},
		[]string{
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`passthrough=false`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.tls.passthrough=false`,
			`traefik.tcp.routers.r.tls=true`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice does not end TLS of connections for TCP: want tls.passthrough=true, and the certificate at the instances`,
		},
	},
	{
		`a certificate of Traefik`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`example.com`)",
			`traefik.tcp.routers.r.tls.certresolver=myresolver`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice does not end TLS of connections for TCP: want tls.passthrough=true, and the certificate at the instances`,
		},
	},
	{
		`passthrough with certificates`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`example.org`)",
			`traefik.tcp.routers.r.tls.certresolver=myresolver`,
			`traefik.tcp.routers.r.tls.domains[0].main=example.org`,
			`traefik.tcp.routers.r.tls.options=mysoptions`,
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{
			`tls 22 {"host":"example.org"}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{
			`0: with tls.passthrough the instances have the certificates: ignored`,
			`0: with tls.passthrough the instances have the certificates: ignored`,
			`0: with tls.passthrough the instances have the certificates: ignored`,
		},
	},
	{
		`passthrough, wrong`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.tls.passthrough=yes`,
		},
		[]string{}, ``,
		[]string{
			`0: want true or false`,
		},
	},
	{
		`ClientIP`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`) && ClientIP(`10.0.0.0/8`)",
		},
		[]string{}, ``,
		[]string{
			`44: sluice does not choose connections by ClientIP: want the middleware ipallowlist, which closes connections of other clients`,
		},
	},
	{
		`ALPN`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`h`) && !ALPN(`h2`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{}, ``,
		[]string{
			`45: sluice does not choose connections by ALPN: want HostSNI`,
		},
	},
	{
		`not a host`, []string{
			"traefik.tcp.routers.r.rule=!HostSNI(`h`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{}, ``,
		[]string{
			`29: sluice does not choose connections by what their server name is not: want HostSNI without !`,
		},
	},
	{
		`two hosts at once`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`a`) && HostSNI(`b`)",
			`traefik.tcp.routers.r.tls.passthrough=true`,
		},
		[]string{}, ``,
		[]string{
			`44: a client asks for one server name: want || between them`,
		},
	},
	{
		`a matcher for HTTP`, []string{
			"traefik.tcp.routers.r.rule=Host(`a`)",
		},
		[]string{}, ``,
		[]string{
			`28: Host is not for this protocol: want ALPN, ClientIP, HostSNI, HostSNIRegexp`,
		},
	},
	{
		`a matcher for TCP in a router for HTTP`, []string{
			"traefik.http.routers.r.rule=HostSNI(`a`)",
		},
		[]string{}, ``,
		[]string{
			`29: HostSNI is not for this protocol: want ClientIP, Header, HeaderRegexp, Host, HostRegexp, Method, Path, PathPrefix, PathRegexp, Query, QueryRegexp`,
		},
	},
	{
		`no rule`, []string{
			`traefik.tcp.routers.r.entrypoints=ep1`,
		},
		[]string{}, ``,
		[]string{
			"0: a router for TCP needs the key rule, such as HostSNI(`*`)",
		},
	},
	{
		`TCP and HTTP`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
		},
		[]string{
			`9 {"host":"a"}`,
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`TCP, and HTTP over TLS to the instances`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.server.scheme=https`,
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
		},
		[]string{
			`9 {"host":"a"}`,
		}, `{"upstream":{"tls":{}}}`,
		[]string{
			`0: another tag of the instance asks for another upstream: want one for all routes of a service`,
		},
	},
	{
		`TCP, and HTTP with a cookie`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.sticky.cookie=true`,
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
		},
		[]string{
			`9 {"host":"a"}`,
		}, `{"balance":{"policy":"sticky"},"upstream":{}}`,
		[]string{
			`0: the service is sticky by cookie for its routers for HTTP, which connections for TCP do not have`,
		},
	},
	{
		`an allow list`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.middlewares=test-ipallowlist`,
			`traefik.tcp.middlewares.test-ipallowlist.ipallowlist.sourcerange=127.0.0.1/32, 192.168.1.7`,
		},
		[]string{
			`tcp -1 {"allow":["127.0.0.1/32","192.168.1.7"]}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{},
	},
	{
		`an allow list, wrong`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.middlewares=test-ipallowlist`,
			`traefik.tcp.middlewares.test-ipallowlist.ipallowlist.sourcerange=localhost`,
		},
		[]string{
			`closed tcp -1 {"deny":["0.0.0.0/0","::/0"]}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{
			`0: want addresses and networks, with commas between them; the route denies every request`,
		},
	},
	{
		`connections of a client`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.middlewares=test-inflightconn`,
			`traefik.tcp.middlewares.test-inflightconn.inflightconn.amount=10`,
		},
		[]string{
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{
			`0: want client.limits.connections_per_address in the file: ignored`,
		},
	},
	{
		`a middleware for HTTP`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.middlewares=auth`,
			`traefik.tcp.middlewares.auth.basicauth.users=a:b`,
		},
		[]string{
			`closed tcp -1 {"deny":["0.0.0.0/0","::/0"]}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{
			`0: sluice has no middleware of the kind basicauth: want one of chain, inflightconn, ipallowlist, ipwhitelist; the route denies every request`,
		},
	},
}
