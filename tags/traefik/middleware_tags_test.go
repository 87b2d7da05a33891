package traefik

// middlewareTags are those of the other middlewares.
var middlewareTags = []tagTest{
	{
		`headers`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=testHeader`,
			`traefik.http.middlewares.testHeader.headers.customrequestheaders.X-Script-Name=test`,
			`traefik.http.middlewares.testHeader.headers.customrequestheaders.X-Custom-Request-Header=`,
			`traefik.http.middlewares.testHeader.headers.customresponseheaders.X-Custom-Response-Header=value`,
			`traefik.http.middlewares.testHeader.headers.framedeny=true`,
			`traefik.http.middlewares.testHeader.headers.browserxssfilter=true`,
			`traefik.http.middlewares.testHeader.headers.contenttypenosniff=false`,
			`traefik.http.middlewares.testHeader.headers.referrerpolicy=same-origin`,
			`traefik.http.middlewares.testHeader.headers.stsseconds=31536000`,
			`traefik.http.middlewares.testHeader.headers.accesscontrolallowmethods=GET,OPTIONS,PUT`,
		},
		[]string{
			`9 {"host":"a","request_headers":{"remove":["X-Custom-Request-Header"],"set":{"X-Script-Name":"test"}},"response_headers":{"set":{"Referrer-Policy":"same-origin","X-Custom-Response-Header":"value","X-Frame-Options":"DENY","X-XSS-Protection":"1; mode=block"}}}`,
		}, ``,
		[]string{
			`0: sluice has no such key: ignored`,
			`0: Strict-Transport-Security is a setting of the listener (hsts): ignored`,
		},
	},
	{
		`basicauth`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=test-auth`,
			`traefik.http.middlewares.test-auth.basicauth.users=test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/,test2:$apr1$d9hr9HBB$4HxwgUir3HP4EsggP/QNo0`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: who can read the tags of a service can read its passwords, so sluice takes none from tags: want a route in the file with basic_auth; the route denies every request`,
		},
	},
	{
		`forwardauth`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.forwardauth.address=https://example.com/auth`,
			`traefik.http.middlewares.m.forwardauth.authresponseheaders=X-Auth-User, X-Secret`,
			`traefik.http.middlewares.m.forwardauth.trustforwardheader=true`,
		},
		[]string{
			`9 {"forward_auth":{"response_headers":["X-Auth-User","X-Secret"],"url":"https://example.com/auth"},"host":"a"}`,
		}, ``,
		[]string{
			`0: sluice trusts client.trusted_proxies: ignored`,
		},
	},
	{
		`forwardauth with more`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.forwardauth.address=https://example.com/auth`,
			`traefik.http.middlewares.m.forwardauth.tls.insecureskipverify=true`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: sluice has no such key; the route denies every request`,
		},
	},
	{
		`ratelimit`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.ratelimit.average=100`,
			`traefik.http.middlewares.m.ratelimit.period=1m`,
			`traefik.http.middlewares.m.ratelimit.burst=200`,
			`traefik.http.middlewares.m.ratelimit.sourcecriterion.requestheadername=X-User`,
		},
		[]string{
			`9 {"host":"a","rate_limit":{"burst":"200","key":"header X-User","per":"1m","rate":"100"}}`,
		}, ``,
		[]string{},
	},
	{
		`ratelimit without average`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.ratelimit.burst=200`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: no limit without average: ignored`,
		},
	},
	{
		`ipallowlist`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.ipallowlist.sourcerange=127.0.0.1/32, 192.168.1.7`,
		},
		[]string{
			`9 {"allow":["127.0.0.1/32","192.168.1.7"],"host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`ipwhitelist, wrong`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.ipwhitelist.sourcerange=localhost`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: want addresses and networks, with commas between them; the route denies every request`,
		},
	},
	{
		`inflightreq`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.inflightreq.amount=10`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``,
		[]string{
			`0: requests at a time are limited per service: ignored; want limits.requests of the service in the file`,
		},
	},
	{
		`retry`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.retry.attempts=4`,
			`traefik.http.middlewares.m.retry.initialinterval=100ms`,
		},
		[]string{
			`9 {"host":"a","retry":{"attempts":"4"}}`,
		}, ``,
		[]string{
			`0: sluice has no such key: ignored`,
		},
	},
	{
		`retry, too often`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.retry.attempts=9`,
		},
		[]string{
			`9 {"host":"a","retry":{"attempts":"5"}}`,
		}, ``,
		[]string{
			`0: at most 5 attempts: 5 count`,
		},
	},
	{
		`compress`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.compress=true`,
		},
		[]string{
			`9 {"compress":{"min_length":"1024B"},"host":"a"}`,
		}, ``, nil,
	},
	{
		`compress, switched off`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.compress=false`,
		},
		[]string{
			`9 {"host":"a"}`,
		}, ``, nil,
	},
	{
		`compress, with options`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.compress.defaultEncoding=gzip`,
			`traefik.http.middlewares.m.compress.encodings=gzip, deflate, br`,
			`traefik.http.middlewares.m.compress.excludedContentTypes=text/event-stream`,
			`traefik.http.middlewares.m.compress.includedContentTypes=text/html,application/json`,
			`traefik.http.middlewares.m.compress.minResponseBodyBytes=200`,
		},
		[]string{
			`9 {"compress":{"encodings":["gzip","br"],"min_length":"200B","types":["text/html","application/json"]},"host":"a"}`,
		}, ``,
		[]string{
			`0: sluice has no such key: ignored`,
			`0: sluice does not know all of these: the others count`,
			`0: sluice compresses the types of a list, which has neither text/event-stream nor pictures: ignored; want includedcontenttypes`,
		},
	},
	{
		`buffering`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.buffering.maxrequestbodybytes=2000000`,
			`traefik.http.middlewares.m.buffering.memrequestbodybytes=2000000`,
		},
		[]string{
			`9 {"body_limit":"2000000B","host":"a"}`,
		}, ``,
		[]string{
			`0: sluice has no such key: ignored`,
		},
	},
	{
		`chain`, []string{
			`traefik.http.routers.router1.service=service1`,
			`traefik.http.routers.router1.middlewares=secured`,
			"traefik.http.routers.router1.rule=Host(`mydomain`)",
			`traefik.http.middlewares.secured.chain.middlewares=https-only,known-ips`,
			`traefik.http.middlewares.https-only.redirectscheme.scheme=https`,
			`traefik.http.middlewares.known-ips.ipallowlist.sourceRange=192.168.1.7,127.0.0.1/32`,
			`traefik.http.services.service1.loadbalancer.server.port=80`,
		},
		[]string{
			`16 {"allow":["192.168.1.7","127.0.0.1/32"],"host":"mydomain","redirect":{"code":"307","get_code":"302","to":"https://$host$path"},"when":{"scheme":"http"}}`,
			`16 {"allow":["192.168.1.7","127.0.0.1/32"],"host":"mydomain","when":{"scheme":"https"}}`,
		}, ``,
		[]string{},
	},
	{
		`a chain of itself`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.chain.middlewares=m`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: the chain of middlewares is too deep, or uses itself; the route denies every request`,
		},
	},
	{
		`fields of a client certificate, which sluice does not set`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=c`,
			`traefik.http.middlewares.c.passtlsclientcert.pem=true`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: the peers believe X-Forwarded-Tls-Client-Cert, which sluice does not set, and clients could: want a listener in the file with tls.client_ca, which tells peers X-Forwarded-Client-Cert; the route denies every request`,
		},
	},
	{
		`options of TLS, which may ask for client certificates`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.tls=true`,
			`traefik.http.routers.r.tls.options=mtls@file`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a","when":{"scheme":"https"}}`,
		}, ``,
		[]string{
			`0: the options may ask clients for certificates, and the listener has the settings of TLS: want a listener in the file with them, and the router without tls.options; the route denies every request`,
		},
	},
	{
		`hosts that the middleware allows`, []string{
			"traefik.http.routers.r.rule=PathPrefix(`/a`)",
			`traefik.http.routers.r.middlewares=h`,
			`traefik.http.middlewares.h.headers.allowedhosts=a.example`,
		},
		[]string{
			`closed 16 {"deny":["0.0.0.0/0","::/0"],"match":"string_prefix","path":"/a"}`,
		}, ``,
		[]string{
			`0: sluice decides by the rule which hosts a router has: want Host in the rule; the route denies every request`,
		},
	},
	{
		`a plugin`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.plugin.waf.mode=block`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: sluice has no middleware of the kind plugin: want one of chain, addprefix, basicauth, buffering, circuitbreaker, compress, contenttype, errors, forwardauth, grpcweb, headers, inflightreq, ipallowlist, ipwhitelist, passtlsclientcert, ratelimit, redirectregex, redirectscheme, replacepath, replacepathregex, retry, stripprefix, stripprefixregex; the route denies every request`,
		},
	},
	{
		`no such middleware`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=auth@file`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			`0: no middleware "auth" in the tags of the instance, which are the only ones that it can use; the route denies every request`,
		},
	},
	{
		`restricted, and with a redirect that cannot be made`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=a,b`,
			`traefik.http.middlewares.a.ipallowlist.sourcerange=10.0.0.0/8`,
			`traefik.http.middlewares.b.redirectregex.regex=(`,
		},
		[]string{
			`closed 9 {"deny":["0.0.0.0/0","::/0"],"host":"a"}`,
		}, ``,
		[]string{
			"0: want a regular expression in Go's syntax: error parsing regexp: missing closing ): `(`",
		},
	},
}
