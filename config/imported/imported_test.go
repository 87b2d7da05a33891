package imported

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/config"
	"sluice/test/testcert"
	"sluice/test/verify"
)

var update = flag.Bool("update", false, "write the results into testdata")

// cases are realistic files, with the names of their results.
var cases = []struct{ origin, result, files string }{
	{"fabio", "fabio", "fabio.properties"},
	{"haproxy", "haproxy", "haproxy.cfg"},
	{"nginx", "nginx", "nginx.conf"},
	{"traefik", "traefik", "traefik.yml traefik-dynamic.yml"},
}

// inputs returns the files of a case.
func inputs(t testing.TB, names string) (files []File) {
	t.Helper()
	for name := range strings.FieldsSeq(names) {
		text := verify.Result(os.ReadFile(filepath.Join("testdata", name))).Must(t)
		files = append(files, File{name, string(text)})
	}
	return files
}

// inDirectory makes a directory with the files that the inputs name the current one.
func inDirectory(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	cert, key := testcert.PEM("shop.example.com")
	for name, text := range map[string]string{
		"site.pem": string(cert), "site.key": string(key), "ca.pem": string(cert), "both.pem": string(cert) + string(key),
		"users": "ann:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	t.Chdir(dir)
}

func write(t testing.TB, file, text string) {
	t.Helper()
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// checked returns the configuration, as sluice check reads it.
func checked(t testing.TB, text []byte) *config.Config {
	t.Helper()
	in := config.Input{File: "sluice.yaml", OpenFiles: true}
	built, err := in.Build([]config.Source{in.FileSource(string(text))})
	verify.Require(t, err == nil, "sluice check refuses the result:\n%v\n%s", err, text)
	return built.Config
}

func lines(notes []Note) (text string) {
	for _, n := range notes {
		text += n.String() + "\n"
	}
	return text
}

func TestTranslate(t *testing.T) {
	for _, c := range cases {
		t.Run(c.result, func(t *testing.T) {
			files := inputs(t, c.files)
			testdata := verify.Result(filepath.Abs("testdata")).Must(t)
			inDirectory(t)
			result := verify.Result(Translate(c.origin, files)).Must(t)
			checked(t, result.YAML)
			for end, got := range map[string]string{".result.yaml": string(result.YAML), ".notes": lines(result.Notes)} {
				golden := filepath.Join(testdata, c.result+end)
				if *update {
					write(t, golden, got)
				}
				want := string(verify.Result(os.ReadFile(golden)).Must(t))
				verify.That(t, got == want, "%s has\n%s\nand not\n%s", golden, want, got)
			}
		})
	}
}

// Without a line, the configuration or the notes are others.
func TestEveryLineIsUsedOrNoted(t *testing.T) {
	for _, c := range cases {
		if c.origin == "traefik" { // its lines are not its values
			continue
		}
		t.Run(c.origin, func(t *testing.T) {
			files := inputs(t, c.files)
			inDirectory(t)
			whole := verify.Result(Translate(c.origin, files)).Must(t)
			all := strings.Split(files[0].Text, "\n")
			for i, line := range all {
				line = strings.TrimSpace(line)
				if line == "" || line[0] == '#' || slices.Contains(asByDefault, line) {
					continue
				}
				without := slices.Clone(all)
				without[i] = "" // the numbers of the others stay
				less, err := Translate(c.origin, []File{{files[0].Name, strings.Join(without, "\n")}})
				if err == nil && string(less.YAML) == string(whole.YAML) && len(less.Notes) == len(whole.Notes) {
					t.Errorf("%s:%d: %s: neither used nor noted", files[0].Name, i+1, line)
				}
			}
		})
	}
}

// asByDefault are lines that say what would be without them, or in parts that are left out.
var asByDefault = []string{
	"proxy.matcher = prefix", "registry.backend = consul",
	"mode http", "option httplog", "option redispatch", "nameserver local 127.0.0.1:8600",
	"sendfile on;", "proxy_http_version 1.1;", "proxy_set_header X-Real-IP $remote_addr;", "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
	"proxy_set_header X-Forwarded-Proto $scheme;", "default upgrade;", "'' close;", "zone shop 64k;", "keepalive 32;", "listen [::]:80 default_server;",
	"ssl_protocols TLSv1.2 TLSv1.3;", "proxy_set_header Upgrade $http_upgrade;", "proxy_set_header Connection $connection_upgrade;", "satisfy all;",
	"proxy_ssl_server_name on;", "server_name _;", "proxy_pass http://10.0.0.10;", "proxy_pass http://10.0.0.7:9000;", "proxy_set_header Host $proxy_host;",
}

// opened returns what a configuration lets everybody use: services by routes and listeners, and
// those in Consul's catalog, if a listener is there for it.
func opened(c *config.Config) (open []string) {
	anonymous, secure := make(map[string]bool), false
	for _, l := range c.Listeners {
		secure = secure || l.TLS != nil
		anonymous[l.Name] = l.TLS == nil || l.TLS.ClientCA == ""
		if l.Protocol == config.ProtocolTCP && anonymous[l.Name] {
			open = append(open, "tcp "+l.Service)
		}
	}
	reachable := func(names []string) bool {
		for name, anybody := range anonymous {
			if anybody && (len(names) == 0 || slices.Contains(names, name)) {
				return true
			}
		}
		return false
	}
	for _, r := range c.Routes {
		restricted := len(r.Allow)+len(r.Deny) > 0 || r.BasicAuth != nil || r.JWT != nil || r.ForwardAuth != nil || r.ClientCertificate != ""
		if r.When != nil && r.When.Scheme == "https" && !secure {
			continue
		}
		conditional := r.When != nil && (len(r.When.Client) > 0 || r.When.Not != nil)
		if !restricted && !conditional && r.Service != "" && reachable(r.Listeners) {
			open = append(open, r.Service+" "+r.Host+r.Path)
		}
	}
	if c.Catalog != nil && reachable(c.Catalog.Listeners) {
		open = append(open, "catalog")
	}
	slices.Sort(open)
	return slices.Compact(open)
}

// What restricts and does not carry over opens nothing.
func TestWhatIsShutStaysShut(t *testing.T) {
	const entry = "entryPoints: { web: { address: ':80' } }\n"
	router := func(router, middlewares string) string {
		return entry + "http:\n  routers: { r: { rule: 'Host(`a.com`)', service: s" + router + " } }\n  middlewares: { " + middlewares + " }\n" +
			"  services: { s: { loadBalancer: { servers: [{ url: 'http://10.0.0.1:80' }] } } }\n"
	}
	front := func(rule string) string {
		return "frontend f\n bind :80\n " + rule + "\n default_backend s\nbackend s\n server a 10.0.0.1:80"
	}
	nginx := func(location string) string {
		return "upstream s { server 10.0.0.1:80; } server { listen 80; location / { proxy_pass http://s; " + location + " } }"
	}
	secured := func(keys, middlewares string) string {
		return strings.Replace(router(keys, middlewares), "':80'", "':443'", 1)
	}
	for _, c := range []struct {
		name, origin, text string
		open               string // with a comma between them
	}{
		{"fabio", "fabio", "proxy.addr=:80", "catalog"},
		{"other matcher", "fabio", "proxy.addr=:80\nproxy.matcher=iprefix", ""},
		{"other registry", "fabio", "proxy.addr=:80\nregistry.backend=static", ""},
		{"client certificates", "fabio", "proxy.addr=:443;cs=a\nproxy.cs=cs=a;type=file;cert=site.pem;key=site.key;clientca=ca.pem", ""},
		{"client certificates elsewhere", "fabio", "proxy.addr=:443;cs=a\nproxy.cs=cs=a;type=consul;cert=http://c/v1/kv/x;clientca=http://c/v1/kv/ca", ""},
		{"certificates that do not carry over", "fabio", "proxy.addr=:443;cs=a\nproxy.cs=cs=a;type=vault;cert=secret/x", ""},

		{"haproxy", "haproxy", front(""), "s /"},
		{"deny", "haproxy", front("http-request deny"), ""},
		// The route that denies comes before.
		{"deny others", "haproxy", front("http-request deny if !{ src 10.0.0.0/8 }"), "s /"},
		{"deny by another kind of expression", "haproxy", front("http-request deny if { path_reg ^/(?!public) }"), ""},
		{"deny for a wrong network", "haproxy", front("http-request deny if { src 10.0.0.0/33 }"), ""},
		{"deny by what is unknown", "haproxy", front("http-request deny if { req.fhdr(x) -m found }"), ""},
		{"passwords", "haproxy", front("http-request auth unless { http_auth(staff) }"), ""},
		{"Lua", "haproxy", front("http-request lua.check"), ""},
		{"tarpit", "haproxy", front("http-request tarpit if { sc_http_req_rate(0) gt 20 }"), ""},
		{"reject", "haproxy", front("tcp-request connection reject if !{ src -f list }"), ""},
		{"deny at the backend", "haproxy", front("") + "\n http-request deny", ""},
		{"unknown condition to what restricts", "haproxy", strings.Replace(front(""), "default_backend s", "use_backend s if { nbsrv(s) gt 1 }", 1) + "\n http-request deny if { path /x }", ""},
		{"client certificates", "haproxy", strings.Replace(front(""), ":80", ":443 ssl crt both.pem ca-file ca.pem verify required", 1), ""},
		{"optional certificates of unknown kind", "haproxy", strings.Replace(front(""), ":80", ":443 ssl crt both.pem crt-list x", 1), ""},
		{"interface", "haproxy", strings.Replace(front(""), ":80", ":80 interface eth1", 1), ""},
		{"connections", "haproxy", strings.Replace(front("tcp-request connection reject if !{ src 10.0.0.0/8 }"), "bind", "mode tcp\n bind", 1), ""},
		{"defaults", "haproxy", "defaults\n http-request deny\n" + front(""), ""},

		{"location", "nginx", nginx(""), "s /"},
		{"deny, as it is", "nginx", nginx("deny all;"), ""},
		{"deny around, as it is", "nginx", "deny all; " + nginx(""), ""},
		{"deny of a group", "nginx", nginx("deny group;"), ""},
		{"allow", "nginx", nginx("allow 10.0.0.0/8; deny all;"), ""},
		{"allow all first", "nginx", nginx("allow all; deny all;"), "s /"},
		{"allow without deny", "nginx", nginx("allow 10.0.0.0/8;"), "s /"},
		{"allow nobody", "nginx", nginx("allow unix:; deny all;"), ""},
		{"passwords, as it is", "nginx", nginx("auth_basic x; auth_basic_user_file users;"), ""},
		{"passwords without a file", "nginx", nginx("auth_basic x;"), ""},
		{"passwords of a variable", "nginx", nginx("auth_basic $realm; auth_basic_user_file $file;"), ""},
		{"passwords or an address", "nginx", nginx("satisfy any; allow 10.0.0.0/8; deny all; auth_basic x; auth_basic_user_file users;"), ""},
		{"passwords off", "nginx", "auth_basic x; auth_basic_user_file users; " + nginx("auth_basic off;"), "s /"},
		{"subrequests", "nginx", nginx("auth_request /auth;"), ""},
		{"subrequests off", "nginx", nginx("auth_request off;"), "s /"},
		{"Lua", "nginx", nginx("access_by_lua_file x.lua;"), ""},
		{"unknown module", "nginx", nginx("modsecurity on;"), ""},
		{"methods", "nginx", nginx("limit_except GET { deny all; }"), ""},
		{"internal, as it is", "nginx", nginx("internal;"), ""},
		{"return, as it is", "nginx", nginx("return 403;"), ""},
		{"if", "nginx", nginx("if ($http_x = 1) { return 403; }"), ""},
		{"if by a variable", "nginx", nginx("if ($bad) { return 403; }"), ""},
		{"if by methods", "nginx", nginx("if ($request_method !~ ^(GET|HEAD)$) { return 405; }"), ""},
		{"if around", "nginx", strings.Replace(nginx(""), "location", "if ($bad) { return 444; } location", 1), ""},
		{"redirect by a variable", "nginx", nginx("if ($bad) { return 301 /x; }"), "s /"},
		{"missing file", "nginx", nginx("include snippets/office.conf;"), ""},
		{"missing file, and an answer", "nginx", nginx("include snippets/office.conf; return 200 secret;"), ""},
		{"harmless settings", "nginx", nginx("send_timeout 5; proxy_buffer_size 8k; sub_filter a b; log_by_lua_block { x = { } }"), "s /"},
		{"missing parameters", "nginx", nginx("include proxy_params;"), "s /"},
		{"missing servers", "nginx", "include conf.d/*.conf; " + nginx(""), "s /"},
		{"within, as it is", "nginx", nginx("deny all; location /x { proxy_pass http://s; }"), ""},
		{"within, and open", "nginx", nginx("deny all; location /x { allow all; proxy_pass http://s; }"), ""},
		{"within what is open", "nginx", nginx("location /x { deny all; }"), ""},
		{"expression within", "nginx", nginx(`location ~ \.git { deny all; proxy_pass http://s; }`), ""},
		{"expression of Perl", "nginx", strings.Replace(nginx(""), "location", "location ~ ^/(?!public) { deny all; } location", 1), ""},
		{"open expression of Perl", "nginx", strings.Replace(nginx("deny all;"), "location", "location ~ ^/(?!admin) { proxy_pass http://s; } location", 1), ""},
		{"below ^~", "nginx", strings.Replace(nginx("deny all;"), "location", "location ^~ /a { deny all; } location /a/b { proxy_pass http://s; } location ~ secret { deny all; } location", 1), ""},
		{"the same path", "nginx", strings.Replace(nginx("deny all;"), "location", "location = /a { proxy_pass http://s; } location = /a/ { deny all; } location", 1), ""},
		// The route that denies what the rewrite is for comes before.
		{"rewrite to what is restricted", "nginx", strings.Replace(nginx("rewrite ^/x /admin last;"), "location", "location /admin { deny all; } location", 1), "s /"},
		{"every rewrite to what is restricted", "nginx", strings.Replace(nginx("rewrite ^ /admin last;"), "location", "location /admin { deny all; } location", 1), ""},
		{"another path that is the same", "nginx", strings.Replace(nginx("deny all;"), "location", "location = /a { deny all; } location = /a/ { proxy_pass http://s; } location", 1), ""},
		{"client certificates", "nginx", strings.Replace(nginx(""), "listen 80;", "listen 443 ssl; ssl_certificate both.pem; ssl_certificate_key both.pem; ssl_client_certificate ca.pem; ssl_verify_client on;", 1), ""},
		{"client certificates without an authority", "nginx", strings.Replace(nginx(""), "listen 80;", "listen 443 ssl; ssl_certificate both.pem; ssl_certificate_key both.pem; ssl_verify_client on;", 1), ""},
		{"other authorities", "nginx", "server { listen 443 ssl; ssl_certificate both.pem; ssl_certificate_key both.pem; ssl_client_certificate site.pem; ssl_verify_client on; return 404; }" +
			strings.Replace(nginx(""), "listen 80;", "listen 443 ssl; server_name a.com; ssl_certificate both.pem; ssl_certificate_key both.pem; ssl_client_certificate ca.pem; ssl_verify_client on;", 1), ""},
		{"TLS without a certificate", "nginx", strings.Replace(nginx(""), "listen 80;", "listen 443 ssl;", 1), ""},
		{"addresses of one server's proxies", "nginx", "server { listen 80; return 404; }" + strings.Replace(nginx("allow 10.0.0.0/8; deny all;"), "listen 80;", "listen 80; server_name a.com; set_real_ip_from 10.0.0.1; real_ip_header X-Forwarded-For;", 1), ""},
		{"addresses in another header", "nginx", "set_real_ip_from 10.0.0.1; " + nginx("deny 10.0.0.0/8;"), ""},
		{"PROXY header of anybody", "nginx", strings.Replace(nginx("deny 10.0.0.0/8;"), "80;", "80 proxy_protocol;", 1), ""},
		{"PROXY header, as it is", "nginx", "set_real_ip_from 10.0.0.1; real_ip_header proxy_protocol; " + strings.Replace(nginx("deny 10.0.0.0/8;"), "listen 80;", "listen 80 proxy_protocol;", 1), ""},
		{"connections", "nginx", "stream { server { listen 81; proxy_pass 10.0.0.1:80; } } http { " + nginx("") + " }", "s /"},

		{"router", "traefik", router("", ""), "s a.com/"},
		{"allow list", "traefik", router(", middlewares: [m]", "m: { ipAllowList: { sourceRange: [10.0.0.0/8] } }"), ""},
		{"wrong allow list", "traefik", router(", middlewares: [m]", "m: { ipAllowList: { sourceRange: [x] } }"), ""},
		{"users", "traefik", router(", middlewares: [m]", "m: { basicAuth: { users: ['a:b'] } }"), ""},
		{"users and a file", "traefik", router(", middlewares: [m]", "m: { basicAuth: { usersFile: users, users: ['a:b'] } }"), ""},
		{"digest", "traefik", router(", middlewares: [m]", "m: { digestAuth: { usersFile: users } }"), ""},
		{"forward", "traefik", router(", middlewares: [m]", "m: { forwardAuth: { address: 'http://a/', tls: { ca: x } } }"), ""},
		{"plugin", "traefik", router(", middlewares: [m]", "m: { plugin: { jwt: { secret: x } } }"), ""},
		{"unknown", "traefik", router(", middlewares: [other]", ""), ""},
		{"of another provider", "traefik", router(", middlewares: [m@docker]", "m: { compress: {} }"), ""},
		{"unknown in a chain", "traefik", router(", middlewares: [m]", "m: { chain: { middlewares: [other] } }"), ""},
		{"users in a chain", "traefik", router(", middlewares: [m]", "m: { chain: { middlewares: [n] } }, n: { basicAuth: { users: ['a:b'] } }"), ""},
		{"without options", "traefik", router(", middlewares: [m]", "m: {}"), ""},
		{"unknown key", "traefik", router(", midlewares: [m]", ""), ""},
		{"options of TLS", "traefik", secured(", tls: { options: mtls }", "") + "tls: { certificates: [{ certFile: site.pem, keyFile: site.key }] }", ""},
		{"client certificates for all", "traefik", secured(", tls: {}", "") +
			"tls: { certificates: [{ certFile: site.pem, keyFile: site.key }], options: { default: { clientAuth: { caFiles: [ca.pem], clientAuthType: RequireAndVerifyClientCert } } } }", ""},
		{"unverified certificates for all", "traefik", secured(", tls: {}", "") +
			"tls: { certificates: [{ certFile: site.pem, keyFile: site.key }], options: { default: { clientAuth: { caFiles: [ca.pem], clientAuthType: RequireAnyClientCert } } } }", ""},
		{"TLS without a certificate", "traefik", secured(", tls: {}", ""), ""},
		{"unknown entry point", "traefik", router(", entryPoints: [internal]", ""), ""},
		{"restricted and not understood", "traefik", strings.Replace(router(", middlewares: [m]", "m: { ipAllowList: { sourceRange: [10.0.0.0/8] } }"),
			"routers: {", "routers: { open: { rule: 'Host(`a.com`)', service: s },", 1) + "", "s a.com/"},
		{"rule of version 2", "traefik", strings.ReplaceAll(router(", middlewares: [m]", "m: { ipAllowList: { sourceRange: [10.0.0.0/8] } }"),
			"Host(`a.com`)", "HostRegexp(`{x:.*}.a.com`)"), ""},
		{"high priorities", "traefik", router(", priority: 2000000, middlewares: [m]", "m: { ipAllowList: { sourceRange: [10.0.0.0/8] } }"), ""},
		{"entry point", "traefik", strings.Replace(router("", "m: { ipAllowList: { sourceRange: [10.0.0.0/8] } }"), "':80'", "':80', http: { middlewares: [m] }", 1), ""},
		{"entry point and tags", "traefik", "entryPoints: { web: { address: ':80', http: { middlewares: [m] } } }\nproviders: { consulCatalog: {} }", ""},
		{"tags", "traefik", entry + "providers: { consulCatalog: {} }", "catalog"},
		{"constraints", "traefik", entry + "providers: { consulCatalog: { constraints: '!Tag(`x`)' } }", ""},
		{"connections", "traefik", entry + "tcp: { routers: { r: { rule: 'HostSNI(`*`)', entryPoints: [web], service: s } } }", ""},
	} {
		t.Run(c.origin+" "+c.name, func(t *testing.T) {
			inDirectory(t)
			result, err := Translate(c.origin, []File{{"input.yml", c.text}})
			if result.YAML == nil && c.open == "" && len(result.Notes) > 0 {
				return
			}
			verify.NoError(t, err)
			verify.Equal(t, strings.Join(opened(checked(t, result.YAML)), ","), c.open, "%s\n%s\nopen", result.YAML, lines(result.Notes))
			if c.open == "" && len(result.Notes) == 0 && !strings.HasSuffix(c.name, ", as it is") && !strings.Contains(string(result.YAML), "client_ca") && !strings.Contains(string(result.YAML), "allow") {
				t.Errorf("no note:\n%s", result.YAML)
			}
		})
	}
}

// What sluice refuses is a note, and not in the result.
func TestWhatSluiceRefusesIsNoted(t *testing.T) {
	inDirectory(t)
	for text, want := range map[string]string{
		"proxy.addr = -1, :80":                        "1: listeners.0.address: ",
		"proxy.addr = :80\nproxy.maxconn = 00":        "2: defaults.service.keepalive.max: ",
		"proxy.addr = :80\nproxy.dialtimeout = 1x":    "2: defaults.service.timeouts.connect: ",
		"proxy.auth = name=a b;type=basic;file=users": "1: actions.a b: ",
	} {
		result, err := Translate("fabio", []File{{"f", text}})
		verify.Require(t, err == nil, "%q: %v", text, err)
		checked(t, result.YAML)
		verify.Contains(t, lines(result.Notes), "f:"+want, "the notes of %q", text)
	}
}

// sluice's variables, and YAML's own words, are texts in other programs.
func TestTextsStayTexts(t *testing.T) {
	inDirectory(t)
	result, err := Translate("traefik", []File{{"input.yml", "entryPoints: { web: { address: ':80' } }\n" +
		"http: { routers: { r: { rule: 'Host(`a.com`) && Header(`X-Key`, `${HOME}`)', service: 'true' } }, services: { 'true': { loadBalancer: { servers: [{ url: 'http://10.0.0.1' }] } } } }"}})
	verify.NoError(t, err)
	routes := checked(t, result.YAML).Routes
	verify.That(t, len(routes) == 1 && routes[0].Service == "true" && routes[0].When.Header["x-key"] == "${HOME}", "%s", result.YAML)
}

func FuzzFabio(f *testing.F)   { fuzz(f, "fabio") }
func FuzzHAProxy(f *testing.F) { fuzz(f, "haproxy") }
func FuzzNginx(f *testing.F)   { fuzz(f, "nginx") }
func FuzzTraefik(f *testing.F) { fuzz(f, "traefik") }

// fuzz checks that any text has a result that sluice accepts, or an error.
func fuzz(f *testing.F, origin string) {
	for _, c := range cases {
		for _, file := range inputs(f, c.files) {
			if c.origin == origin {
				f.Add(file.Text)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		result, err := Translate(origin, []File{{"input", text}})
		verify.That(t, err == nil || !strings.Contains(err.Error(), "refuses the result"), "%v", err)
		for _, n := range result.Notes {
			verify.That(t, !strings.ContainsAny(n.String(), "\n\r"), "%q has several lines", n)
		}
	})
}
