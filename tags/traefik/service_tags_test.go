package traefik

// serviceTags are those of services.
var serviceTags = []tagTest{
	{
		`a port of its own`, []string{
			"traefik.http.routers.my-service.rule=Host(`example.com`)",
			`traefik.http.routers.my-service.service=my-service`,
			`traefik.http.services.my-service.loadbalancer.server.port=12345`,
		},
		[]string{}, ``,
		[]string{
			`0: the instance is registered with port 80: want a service of its own in Consul for another port`,
		},
	},
	{
		`the port of the instance`, []string{
			"traefik.http.routers.my-service.rule=Host(`example.com`)",
			`traefik.http.services.my-service.loadbalancer.server.port=80`,
		},
		[]string{
			`19 {"host":"example.com"}`,
		}, ``,
		[]string{},
	},
	{
		`several routers and services`, []string{
			"traefik.http.routers.www-router.rule=Host(`example-a.com`)",
			`traefik.http.routers.www-router.service=www-service`,
			`traefik.http.services.www-service.loadbalancer.server.port=80`,
			"traefik.http.routers.admin-router.rule=Host(`example-b.com`)",
			`traefik.http.routers.admin-router.service=admin-service`,
			`traefik.http.services.admin-service.loadbalancer.server.port=9000`,
		},
		[]string{
			`21 {"host":"example-a.com"}`,
		}, ``,
		[]string{
			`0: the instance is registered with port 80: want a service of its own in Consul for another port`,
		},
	},
	{
		`several services, none chosen`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s1.loadbalancer.server.scheme=http`,
			`traefik.http.services.s2.loadbalancer.server.scheme=http`,
		},
		[]string{}, ``,
		[]string{
			`0: the instance has several services: want the key service of the router with one of s1, s2`,
		},
	},
	{
		`another service`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.service=victim`,
		},
		[]string{}, ``,
		[]string{
			`0: a tag reaches no other service: want one that tags of the instance define, or svc`,
		},
	},
	{
		`the API of Traefik`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.service=api@internal`,
		},
		[]string{}, ``,
		[]string{
			`0: a tag reaches no other service: want one that tags of the instance define, or svc`,
		},
	},
	{
		`its own name as the service`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.service=svc`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`scheme https`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.server.scheme=https`,
			`traefik.http.services.s.loadbalancer.passhostheader=false`,
		},
		[]string{
			`9 {"host":"a","host_header":"peer"}`,
		}, `{"upstream":{"tls":{}}}`,
		[]string{},
	},
	{
		`scheme h2c`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.server.scheme=h2c`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, `{"upstream":{"protocol":"h2c"}}`,
		[]string{},
	},
	{
		`sticky`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.sticky.cookie=true`,
			`traefik.http.services.s.loadbalancer.sticky.cookie.name=foobar`,
			`traefik.http.services.s.loadbalancer.sticky.cookie.secure=true`,
			`traefik.http.services.s.loadbalancer.sticky.cookie.samesite=None`,
			`traefik.http.services.s.loadbalancer.sticky.cookie.maxage=42`,
			`traefik.http.services.s.loadbalancer.sticky.cookie.httponly=true`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, `{"balance":{"policy":"sticky","sticky":{"cookie":"foobar","max_age":"42s","same_site":"none","secure":"true"}},"upstream":{}}`,
		[]string{},
	},
	{
		`health check`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.healthcheck.path=/health`,
			`traefik.http.services.s.loadbalancer.healthcheck.interval=10`,
			`traefik.http.services.s.loadbalancer.healthcheck.timeout=3s`,
			`traefik.http.services.s.loadbalancer.healthcheck.port=42`,
			`traefik.http.services.s.loadbalancer.healthcheck.hostname=example.org`,
			`traefik.http.services.s.loadbalancer.healthcheck.status=204`,
			`traefik.http.services.s.loadbalancer.healthcheck.method=HEAD`,
			`traefik.http.services.s.loadbalancer.healthcheck.headers.X-Token=foobar`,
			`traefik.http.services.s.loadbalancer.healthcheck.followredirects=true`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, `{"health":{"active":{"expect":{"status":"204"},"headers":["X-Token: foobar"],"host":"example.org","interval":"10s","method":"HEAD","path":"/health","port":"42","timeout":"3s","type":"http"}},"upstream":{}}`,
		[]string{
			`0: sluice's checks have no such key: ignored`,
		},
	},
	{
		`more of a service`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.loadbalancer.server.weight=42`,
			`traefik.http.services.s.loadbalancer.serverstransport=foobar@file`,
			`traefik.http.services.s.loadbalancer.responseforwarding.flushinterval=10`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: an instance has its weights from Consul: ignored`,
			`0: unknown key of a service: ignored`,
		},
	},
	{
		`weighted services`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.services.s.weighted.services[0].name=x`,
		},
		[]string{}, ``,
		[]string{
			`0: want loadbalancer: other kinds of services are not in tags`,
		},
	},
	{
		`connect and canary`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.consulcatalog.connect=true`,
			`traefik.consulcatalog.canary=false`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: sluice has no such setting: ignored`,
		},
	},
}
