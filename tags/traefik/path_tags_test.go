package traefik

// pathTags are those of middlewares that redirect, or change the path.
var pathTags = []tagTest{
	{
		`redirectscheme`, []string{
			"traefik.http.routers.r.rule=Host(`a`)",
			`traefik.http.routers.r.middlewares=m`,
			`traefik.http.middlewares.m.redirectscheme.scheme=https`,
			`traefik.http.middlewares.m.redirectscheme.permanent=true`,
		},
		[]string{
			`9 {"host":"a","redirect":{"code":"308","get_code":"301","to":"https://$host$path"},"when":{"scheme":"http"}}`,
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
			`9 {"host":"a","redirect":{"code":"307","get_code":"302","to":"https://$host:8443$path"},"when":{"scheme":"http"}}`,
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
			`9 {"host":"a","redirect":{"code":"307","get_code":"302","regexp":"^(.*?)(^http://localhost/(.*))(.*)$","to":"${1}http://mydomain/${3}${4}"}}`,
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
			`9 {"host":"a","redirect":{"code":"308","get_code":"301","regexp":"^(.*?)(^(https?://[^/]+/dash)$)(.*)$","to":"${1}${3}/${4}"},"strip_prefix":"/dash"}`,
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
			`9 {"host":"a","redirect":{"code":"307","get_code":"302","regexp":"^(.*?)((?P\u003cname\u003eb)|c)(.*)$","to":"${1}${3}x${3}/${2}-$$1$$-$${a-b}$$${4}"}}`,
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
			`0: sluice redirects by the URL that the client sent: want the middleware before any that changes the path`,
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
}
