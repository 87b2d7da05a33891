package traefik

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/catalog"
)

// tagTests are tags of an instance of svc with port 80, beside traefik.enable=true. Each route
// is its priority and its keys; a closed one begins with "closed". Then come the settings of
// the service, and the complaints as "COLUMN: TEXT".
var tagTests = []struct {
	name       string
	tags       []string
	routes     []string
	service    string
	complaints []string
}{
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
			`0: certificates and settings of TLS are those of the listener: ignored`,
			`0: certificates and settings of TLS are those of the listener: ignored`,
			`0: certificates and settings of TLS are those of the listener: ignored`,
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
		`redirectscheme`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.redirectscheme.scheme=https`,
			`traefik.http.middlewares.m.redirectscheme.permanent=true`,
		},
		[]string{
			`9 {"host":"a","redirect":{"code":"308","to":"https://$host$path"},"when":{"scheme":"http"}}`,
			`9 {"host":"a","when":{"scheme":"https"}}`,
		}, ``,
		[]string{},
	},
	{
		`redirectscheme with a port`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m@consulcatalog`,
			`traefik.http.middlewares.m.redirectscheme.scheme=https`,
			`traefik.http.middlewares.m.redirectscheme.port=8443`,
		},
		[]string{
			`9 {"host":"a","redirect":{"code":"307","to":"https://$host:8443$path"},"when":{"scheme":"http"}}`,
			`9 {"host":"a","when":{"scheme":"https"}}`,
		}, ``,
		[]string{},
	},
	{
		`redirectscheme over TLS`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.tls=true`,
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.redirectscheme.scheme=https`,
		},
		[]string{
			`9 {"host":"a","when":{"scheme":"https"}}`,
		}, ``,
		[]string{},
	},
	{
		`redirectregex`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=test-redirectregex`,
			`traefik.http.middlewares.test-redirectregex.redirectregex.regex=^http://localhost/(.*)`,
			`traefik.http.middlewares.test-redirectregex.redirectregex.replacement=http://mydomain/${1}`,
		},
		[]string{
			`9 {"host":"a","redirect":{"code":"307","regexp":"^(.*?)(^http://localhost/(.*))(.*)$","to":"${1}http://mydomain/${3}${4}"}}`,
		}, ``,
		[]string{},
	},
	{
		`redirectregex, permanent, with a slash at the end, then a prefix is stripped`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=slash,strip`,
			`traefik.http.middlewares.slash.redirectregex.regex=^(https?://[^/]+/dash)$`,
			`traefik.http.middlewares.slash.redirectregex.replacement=$1/`,
			`traefik.http.middlewares.slash.redirectregex.permanent=true`,
			`traefik.http.middlewares.strip.stripprefix.prefixes=/dash`,
		},
		[]string{
			`9 {"host":"a","redirect":{"code":"308","regexp":"^(.*?)(^(https?://[^/]+/dash)$)(.*)$","to":"${1}${3}/${4}"},"strip_prefix":"/dash"}`,
		}, ``,
		[]string{},
	},
	{
		`redirectregex with names and dollars`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.redirectregex.regex=(?P<name>b)|c`,
			`traefik.http.middlewares.m.redirectregex.replacement=${name}x$name/$0-$1x${9}$$1$-${a-b}$`,
		},
		[]string{
			`9 {"host":"a","redirect":{"code":"307","regexp":"^(.*?)((?P\u003cname\u003eb)|c)(.*)$","to":"${1}${3}x${3}/${2}-$$1$$-$${a-b}$$${4}"}}`,
		}, ``,
		[]string{},
	},
	{
		`redirectregex after stripprefix`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=strip,m`,
			`traefik.http.middlewares.strip.stripprefix.prefixes=/x`,
			`traefik.http.middlewares.m.redirectregex.regex=b`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice redirects by the URL that the client sent: want the middleware before those that change the path`,
		},
	},
	{
		`redirectregex twice`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m,n`,
			`traefik.http.middlewares.m.redirectregex.regex=b`,
			`traefik.http.middlewares.n.redirectregex.regex=c`,
		},
		[]string{}, ``,
		[]string{
			`0: two redirects by pattern: want one, or a router of its own for the other one`,
		},
	},
	{
		`stripprefix`, []string{
			"traefik.http.routers.r.rule=Host(`example.com`) && PathPrefix(`/stripit`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.stripprefix.prefixes=/stripit`,
		},
		[]string{
			`45 {"host":"example.com","match":"string_prefix","path":"/stripit","strip_prefix":"/stripit"}`,
		}, ``,
		[]string{},
	},
	{
		`stripprefix, several`, []string{
			"traefik.http.routers.r.rule=PathPrefix(`/foobar`) || PathPrefix(`/fiibar/x`) || Path(`/other`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.stripprefix.prefixes=/foobar,/fiibar`,
		},
		[]string{
			`66 {"match":"string_prefix","path":"/foobar","strip_prefix":"/foobar"}`,
			`66 {"match":"string_prefix","path":"/fiibar/x","strip_prefix":"/fiibar"}`,
			`66 {"match":"exact","path":"/other"}`,
		}, ``,
		[]string{},
	},
	{
		`stripprefix, several for one path`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.stripprefix.prefixes=/foobar,/fiibar`,
		},
		[]string{}, ``,
		[]string{
			`0: several prefixes to strip: want an alternative of the rule with PathPrefix for each`,
		},
	},
	{
		`stripprefixregex`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.stripprefixregex.regex=/foo/[a-z0-9]+/[0-9]+/`,
		},
		[]string{
			`9 {"host":"a","rewrite":{"regexp":"^(?:/foo/[a-z0-9]+/[0-9]+/)/?(.*)$","to":"/${1}"}}`,
		}, ``,
		[]string{},
	},
	{
		`stripprefixregex of version 2`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.stripprefixregex.regex=/foo/{id:[0-9]+}/`,
		},
		[]string{}, ``,
		[]string{
			`0: placeholders are of version 2: want /foo/(?:[0-9]+)/`,
		},
	},
	{
		`addprefix`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=add-foo`,
			`traefik.http.middlewares.add-foo.addprefix.prefix=/foo`,
		},
		[]string{
			`9 {"add_prefix":"/foo","host":"a"}`,
		}, ``,
		[]string{},
	},
	{
		`strip, then add`, []string{
			"traefik.http.routers.r.rule=PathPrefix(`/a`)",
			`traefik.http.routers.r.middlewares=s,p`,
			`traefik.http.middlewares.s.stripprefix.prefixes=/a`,
			`traefik.http.middlewares.p.addprefix.prefix=/b`,
		},
		[]string{
			`16 {"add_prefix":"/b","match":"string_prefix","path":"/a","strip_prefix":"/a"}`,
		}, ``,
		[]string{},
	},
	{
		`add, then strip`, []string{
			"traefik.http.routers.r.rule=PathPrefix(`/a`)",
			`traefik.http.routers.r.middlewares=p,s`,
			`traefik.http.middlewares.s.stripprefix.prefixes=/a`,
			`traefik.http.middlewares.p.addprefix.prefix=/b`,
		},
		[]string{}, ``,
		[]string{
			`0: sluice strips a prefix, then adds one, or else rewrites the path: want the middlewares in this order, each kind once`,
		},
	},
	{
		`replacepath`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.replacepath.path=/foo$x`,
		},
		[]string{
			`9 {"host":"a","rewrite":{"regexp":"^.*$","to":"/foo$$x"}}`,
		}, ``,
		[]string{},
	},
	{
		`replacepathregex`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.replacepathregex.regex=^/foo/(.*)`,
			`traefik.http.middlewares.m.replacepathregex.replacement=/bar/$1`,
		},
		[]string{
			`9 {"host":"a","rewrite":{"regexp":"^(.*?)(^/foo/(.*))(.*)$","to":"${1}/bar/${3}${4}"}}`,
		}, ``,
		[]string{},
	},
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
			`16 {"allow":["192.168.1.7","127.0.0.1/32"],"host":"mydomain","redirect":{"code":"307","to":"https://$host$path"},"when":{"scheme":"http"}}`,
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
			`0: the weights of an instance are those in Consul: ignored`,
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
		`TCP`, []string{
			"traefik.tcp.routers.my-router.rule=HostSNI(`example.com`)",
			`traefik.tcp.routers.my-router.tls=true`,
			`traefik.tcp.services.my-service.loadbalancer.server.port=4123`,
		},
		[]string{}, ``,
		[]string{
			`0: routes for TCP are not in tags: want a listener in the file with protocol: tcp`,
			`0: routes for TCP are not in tags: want a listener in the file with protocol: tcp`,
			`0: routes for TCP are not in tags: want a listener in the file with protocol: tcp`,
		},
	},
	{
		`UDP`, []string{
			`traefik.udp.routers.my-router.entrypoints=udp`,
		},
		[]string{}, ``,
		[]string{
			`0: routes for UDP are not in tags: want a listener in the file with protocol: tcp`,
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
			`0: unknown key "docker": want http, tcp, udp or enable`,
			`0: unknown key "foo": want http, tcp, udp or enable`,
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

func TestTags(t *testing.T) {
	for _, test := range tagTests {
		tags := append([]string{"traefik.enable=true"}, test.tags...)
		r := Read(catalog.Instance{Service: "svc", Port: 80, Tags: tags}, Options{})
		var routes, complaints []string
		for _, route := range r.Routes {
			text := fmt.Sprintf("%d %s", route.Priority, route.Keys)
			if route.Closed {
				text = "closed " + text
			}
			routes = append(routes, text)
			if !route.Ranked || route.Name == "" || len(route.Tags) == 0 {
				t.Errorf("%s: the route is %+v", test.name, route)
			}
			for _, tag := range route.Tags {
				if !slices.Contains(tags, tag) {
					t.Errorf("%s: the route is made by %q, which no instance has", test.name, tag)
				}
			}
		}
		for _, c := range r.Complaints {
			complaints = append(complaints, fmt.Sprintf("%d: %s", c.Column, c.Want))
			if !slices.Contains(tags, c.Tag) {
				t.Errorf("%s: the complaint %s is about a tag that no instance has", test.name, c)
			}
		}
		service := ""
		if r.Service != nil && r.Service.String() != `{"upstream":{}}` {
			service = r.Service.String()
		}
		if !slices.Equal(routes, test.routes) {
			t.Errorf("%s makes\n%s\nwant\n%s", test.name, strings.Join(routes, "\n"), strings.Join(test.routes, "\n"))
		}
		if service != test.service {
			t.Errorf("%s sets %s, want %s", test.name, service, test.service)
		}
		if !slices.Equal(complaints, test.complaints) {
			t.Errorf("%s has the complaints\n%s\nwant\n%s", test.name, strings.Join(complaints, "\n"), strings.Join(test.complaints, "\n"))
		}
	}
}

func TestExposed(t *testing.T) {
	const rule = "traefik.http.routers.r.rule=Host(`a`)"
	template, err := ParseDefaultRule("Host(`{{ .Name }}.{{ index .Labels \"customLabel\" }}`)")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name       string
		options    Options
		tags       []string
		host       any // of the only route; nil: there is none
		complaints int
	}{
		{"not exposed", Options{}, []string{rule}, nil, 1},
		{"exposed by a tag", Options{}, []string{rule, "traefik.enable=true"}, "a", 0},
		{"exposed by default", Options{Exposed: true}, []string{rule}, "a", 0},
		{"hidden by a tag", Options{Exposed: true}, []string{rule, "traefik.enable=false"}, nil, 0},
		{"neither true nor false", Options{}, []string{rule, "traefik.enable=maybe"}, nil, 1},
		{"without tags of Traefik", Options{Exposed: true}, []string{"v2"}, nil, 0},
		{"another prefix", Options{Prefix: "Edge"}, []string{rule, "edge.enable=true", "edge.http.routers.r.rule=Host(`b`)"}, "b", 0},
		{"a default rule", Options{DefaultRule: template}, []string{"traefik.enable=true", "customLabel=example.com"}, "my service.example.com", 0},
		{"a default rule without a label", Options{DefaultRule: template}, []string{"traefik.enable=true"}, "my service", 0},
		{"the normalized name", Options{}, []string{"traefik.enable=true"}, "my-service", 0},
	} {
		r := Read(catalog.Instance{Service: "my service", Port: 80, Tags: test.tags}, test.options)
		var host any
		if len(r.Routes) == 1 {
			host = r.Routes[0].Keys["host"]
		}
		if host != test.host || len(r.Routes) > 1 || len(r.Complaints) != test.complaints {
			t.Errorf("%s: the routes are %v, the complaints %v", test.name, r.Routes, r.Complaints)
		}
	}
}

// TestOrder checks that the order of tags has no effect.
func TestOrder(t *testing.T) {
	for _, test := range tagTests {
		if test.name == "the same key twice" {
			continue // the last one counts
		}
		tags := append([]string{"traefik.enable=true"}, test.tags...)
		want := Read(catalog.Instance{Service: "svc", Port: 80, Tags: tags}, Options{})
		slices.Reverse(tags)
		got := Read(catalog.Instance{Service: "svc", Port: 80, Tags: tags}, Options{})
		if fmt.Sprint(got.Routes) != fmt.Sprint(want.Routes) || got.Service.String() != want.Service.String() {
			t.Errorf("%s: the tags make %v, in reverse order %v", test.name, want.Routes, got.Routes)
		}
	}
}

// FuzzRead checks that tags make printable routes of their own tags, that a router that is
// not touched stays, and that a restriction never vanishes.
func FuzzRead(f *testing.F) {
	for _, test := range tagTests {
		f.Add(strings.Join(test.tags, "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		const other = "Host(`other`) && PathPrefix(`/kept`)"
		tags := strings.Split(text, "\n")
		if strings.Contains(strings.ToLower(text), "traefik.enable") || strings.Contains(strings.ToLower(text), "kept") {
			return
		}
		touched := strings.Contains(strings.ToLower(text), ".services.") // a service counts for all routers
		r := Read(catalog.Instance{Service: "svc", Port: 80, Tags: append(tags, "traefik.enable=true",
			"traefik.http.routers.kept.rule="+other, "traefik.http.routers.kept.middlewares=kept",
			"traefik.http.middlewares.kept.ipallowlist.sourcerange=10.0.0.0/8")}, Options{})
		if len(r.Routes) > catalog.MaxRoutes {
			t.Fatalf("%d routes", len(r.Routes))
		}
		found := false
		for _, route := range r.Routes {
			if strings.ContainsFunc(route.Keys.String(), func(r rune) bool { return r < 0x20 }) {
				t.Fatalf("control characters in %s", route.Keys)
			}
			if route.Name == "kept" {
				found = true
				if route.Keys["allow"] == nil && route.Keys["deny"] == nil {
					t.Fatalf("the route is open: %s", route.Keys)
				}
			}
		}
		if !found && !touched && len(r.Routes) < catalog.MaxRoutes {
			t.Fatalf("the untouched router is missing in %v", r.Routes)
		}
	})
}
