package traefik

// streamServiceTags are those of services for TCP, and unknown ones of TCP and UDP.
var streamServiceTags = []tagTest{
	{
		`the PROXY protocol`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.services.mytcpservice.loadbalancer.proxyprotocol.version=1`,
		},
		[]string{
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"proxy_protocol":"v1","upstream":{}}`,
		[]string{},
	},
	{
		`the PROXY protocol of the default version`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.services.mytcpservice.loadbalancer.proxyprotocol=true`,
		},
		[]string{
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"proxy_protocol":"v2","upstream":{}}`,
		[]string{},
	},
	{
		`the PROXY protocol beside HTTP`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.services.mytcpservice.loadbalancer.proxyprotocol.version=2`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: the instance has routers for HTTP too, whose requests share connections: want a service of its own in Consul for TCP`,
		},
	},
	{
		`TLS to the instances`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.services.mytcpservice.loadbalancer.server.tls=true`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice does not begin TLS for connections for TCP: want tls.passthrough=true of the router, or instances without TLS`,
		},
	},
	{
		`more of a service for TCP`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.services.s.loadbalancer.terminationdelay=100`,
			`traefik.tcp.services.s.loadbalancer.serverstransport=foobar@file`,
			`traefik.tcp.services.s.loadbalancer.healthcheck.interval=10s`,
			`traefik.tcp.services.s.loadbalancer.healthcheck.send=PING`,
		},
		[]string{
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"health":{"active":{"interval":"10s","type":"tcp"}},"upstream":{}}`,
		[]string{
			`0: unknown key of a service: ignored`,
			`0: sluice waits for both sides, up to timeouts.tunnel: ignored`,
			`0: sluice's checks of TCP only connect: ignored`,
		},
	},
	{
		`weighted services for TCP`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.services.s.weighted.services[0].name=a`,
		},
		[]string{}, ``,
		[]string{
			`0: want loadbalancer: other kinds of services are not in tags`,
		},
	},
	{
		`another service for TCP`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.service=victim`,
		},
		[]string{}, ``,
		[]string{
			`0: a tag reaches no other service: want one that tags of the instance define, or svc`,
		},
	},
	{
		`unknown keys of TCP`, []string{
			"traefik.tcp.routers.r.rule=HostSNI(`*`)",
			`traefik.tcp.routers.r.observability.metrics=true`,
			`traefik.tcp.foo.bar.baz=1`,
		},
		[]string{
			`tcp -1 {}`,
		}, `{"balance":{"policy":"least_conn"},"upstream":{}}`,
		[]string{
			`0: unknown key: want tcp.routers, tcp.middlewares or tcp.services, each with .NAME.OPTION`,
			`0: unknown key of a router: ignored; known are rule, priority, entrypoints, middlewares, service, tls, rulesyntax`,
		},
	},
	{
		`UDP`, []string{
			`traefik.udp.routers.my-router.entrypoints=udp`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice does not forward UDP`,
		},
	},
}
