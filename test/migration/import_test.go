package migration

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/bench/machine"
	"sluice/test/consultest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// users has the password of ann, which is "secret".
const users = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"

// withPassword is ann's.
var withPassword = []string{"Authorization: Basic YW5uOnNlY3JldA=="}

// imports is a load balancer, and what sluice import makes of its files.
type imports struct {
	origin   string
	files    []string // each "NAME\nTEXT", with ADDRESS, CONSUL and DIRECTORY
	args     func(dir string) []string
	program  func(t *testing.T) string
	apps     []app     // in Consul
	servers  []string  // elsewhere: SERVER-NAME in files is the address of one
	requests []request // want is the beginning of both answers, which are the same
}

func (i imports) run(t *testing.T) {
	program := i.program(t)
	var places []string
	if len(i.apps) > 0 {
		consul := consultest.Start(t, consultest.Options{})
		for _, a := range i.apps {
			a.start(t, consul, api.HealthPassing)
		}
		places = append(places, "CONSUL", consul.HTTPAddress())
	}
	for _, name := range i.servers {
		places = append(places, "SERVER-"+name, serve(t, name).String())
	}
	addresses := verify.Result(machine.FreeAddresses(1)).Must(t)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "users"), users)
	write := func(below, address string) (names []string) {
		verify.NoError(t, os.MkdirAll(filepath.Join(dir, below), 0o700))
		for _, file := range i.files {
			name, text, _ := strings.Cut(file, "\n")
			names = append(names, filepath.Join(dir, below, name))
			writeFile(t, names[len(names)-1], strings.NewReplacer(append(places, "ADDRESS", address, "DIRECTORY", dir)...).Replace(text))
		}
		return names
	}
	write("other", addresses[0])
	startPeer(t, subprocess.Options{Program: program, Args: i.args(filepath.Join(dir, "other")), Dir: dir})
	imported := exec.CommandContext(t.Context(), buildSluice(t), append([]string{"import", i.origin}, write("own", "127.0.0.1:0")...)...)
	var notes strings.Builder
	imported.Stderr = &notes
	result, err := imported.Output()
	if err != nil {
		t.Fatalf("sluice import: %v\n%s", err, &notes)
	}
	t.Logf("sluice import:\n%s%s", result, &notes)
	// The names of listeners have the address, where it is all that the other has.
	named := strings.NewReplacer("web 127.0.0.1:0", "web", "name: 127.0.0.1:0", "name: web", "['127.0.0.1:0']", "[web]").Replace(string(result))
	sluice := startSluice(t, filepath.Join(dir, "sluice.yaml"), named).Address("web")
	for _, r := range i.requests {
		if strings.HasPrefix(r.want, "200 ") {
			await(t, addresses[0], r)
			await(t, sluice, r)
		}
	}
	for _, r := range i.requests {
		got, err := ask(addresses[0], r)
		if err != nil || !strings.HasPrefix(got, r.want) {
			t.Errorf("%s: %s answers %q, %v, not %q", r.line, i.origin, got, err, r.want)
			continue
		}
		check(t, "sluice", sluice, r, cmp.Or(r.sluice, got))
	}
}

func TestImportFromFabio(t *testing.T) {
	imports{
		origin:  "fabio",
		program: func(t *testing.T) string { return program(t, fabio) },
		args: func(dir string) []string {
			return []string{"-insecure", "-cfg", filepath.Join(dir, "fabio.properties")}
		},
		files: []string{`fabio.properties
proxy.addr = ADDRESS
proxy.strategy = rr
proxy.auth = name=staff;type=basic;file=DIRECTORY/users;realm=Staff
proxy.header.clientip = X-Client
registry.consul.addr = CONSUL
registry.consul.tagprefix = edge-
registry.consul.register.enabled = false
ui.addr = 127.0.0.1:0
`},
		apps: []app{
			{"shop", []string{"edge-shop.com/"}}, {"api", []string{"edge-shop.com/api strip=/api"}}, {"other", []string{"urlprefix-other.com/"}},
			{"staff", []string{"edge-staff.com/ auth=staff"}}, {"denied", []string{"edge-denied.com/ allow=ip:10.0.0.0/8"}},
		},
		requests: []request{
			{line: "GET shop.com/a?b=c", want: "200 shop /a?b=c"},
			{line: "GET shop.com/api/x", want: "200 api /x"},
			{line: "GET other.com/", want: "404"},
			{line: "GET staff.com/", want: "401"},
			{line: "GET staff.com/", fields: withPassword, want: "200 staff /"},
			{line: "GET denied.com/", want: "403"},
		},
	}.run(t)
}

func TestImportFromTraefik(t *testing.T) {
	imports{
		origin:  "traefik",
		program: func(t *testing.T) string { return program(t, traefik) },
		args:    func(dir string) []string { return []string{"--configfile=" + filepath.Join(dir, "traefik.yml")} },
		files: []string{`traefik.yml
global: { checkNewVersion: false, sendAnonymousUsage: false }
entryPoints: { web: { address: "ADDRESS" } }
providers:
  providersThrottleDuration: 100ms
  consulCatalog: { endpoint: { address: CONSUL }, exposedByDefault: false, watch: true }
  file: { filename: "DIRECTORY/other/dynamic.yml" }
log: { level: INFO }
`, `dynamic.yml
http:
  routers:
    shop: { rule: "Host(` + "`shop.com`" + `)", service: shop@consulcatalog, middlewares: [look] }
    api: { rule: "Host(` + "`shop.com`) && PathPrefix(`/api`" + `)", service: api@consulcatalog, middlewares: [strip, look] }
    first: { rule: "PathPrefix(` + "`/first`" + `)", priority: 1000, service: api@consulcatalog }
    staff: { rule: "Host(` + "`staff.com`" + `)", service: shop@consulcatalog, middlewares: [staff] }
    office: { rule: "Host(` + "`office.com`" + `)", service: shop@consulcatalog, middlewares: [office] }
    here: { rule: "Host(` + "`here.com`" + `)", service: shop@consulcatalog, middlewares: [both] }
    old: { rule: "Host(` + "`old.com`" + `)", service: noop@internal, middlewares: [moved] }
  middlewares:
    look: { headers: { frameDeny: true, customRequestHeaders: { X-Script-Name: test } } }
    strip: { stripPrefix: { prefixes: [/api] } }
    staff: { basicAuth: { usersFile: DIRECTORY/users, realm: Staff } }
    office: { ipAllowList: { sourceRange: [10.0.0.0/8] } }
    here: { ipAllowList: { sourceRange: [127.0.0.0/8] } }
    both: { chain: { middlewares: [here, look] } }
    moved: { redirectRegex: { regex: "^http://old.com/(.*)", replacement: "http://shop.com/${1}", permanent: true } }
`},
		apps: []app{
			{"shop", []string{"traefik.enable=true"}}, {"api", []string{"traefik.enable=true"}}, {"hidden", nil},
			router("tagged", "Host(`tagged.com`)"),
		},
		requests: []request{
			{line: "GET shop.com/a?b=c", want: "200 shop /a?b=c X-Script-Name=test X-Frame-Options=DENY"},
			{line: "GET shop.com/api/x", want: "200 api /x"},
			{line: "GET shop.com/first", want: "200 api /first"},
			{line: "GET tagged.com/", want: "200 tagged /"},
			{line: "GET hidden/", want: "404"},
			{line: "GET staff.com/", want: "401"},
			{line: "GET staff.com/", fields: withPassword, want: "200 shop /"},
			{line: "GET office.com/", want: "403"},
			{line: "GET here.com/", want: "200 shop /"},
			{line: "GET old.com/x?y=z", want: "301 http://shop.com/x?y=z"},
			{line: "GET none.com/", want: "404"},
		},
	}.run(t)
}

func TestImportFromHAProxy(t *testing.T) {
	imports{
		origin:  "haproxy",
		program: func(t *testing.T) string { return debian(t, "haproxy") },
		args:    func(dir string) []string { return []string{"-db", "-f", filepath.Join(dir, "haproxy.cfg")} },
		servers: []string{"shop", "api", "static"},
		files: []string{`haproxy.cfg
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 30s
frontend web
    bind ADDRESS
    acl shop hdr(host) -i shop.com www.shop.com
    acl admin path_beg /admin
    acl internal src 10.0.0.0/8
    http-request redirect location http://shop.com/new code 301 if { path /old }
    http-request deny if admin !internal
    use_backend api if shop { path_beg /api /v1 }
    use_backend static if { path_end .png .jpg }
    default_backend shop
backend api
    balance leastconn
    http-request deny if { method DELETE }
    server a SERVER-api check
backend static
    server s SERVER-static
backend shop
    server s SERVER-shop weight 10
`},
		requests: []request{
			{line: "GET shop.com/a?b=c", want: "200 shop /a?b=c"},
			{line: "GET other.com/", want: "200 shop /"},
			{line: "GET SHOP.com/api/x", want: "200 api /api/x"},
			{line: "GET www.shop.com/v1x", want: "200 api /v1x"},
			{line: "GET other.com/api", want: "200 shop /api"},
			{line: "GET any.com/x/a.png", want: "200 static /x/a.png"},
			{line: "GET shop.com/api/a.png", want: "200 api /api/a.png"},
			{line: "DELETE shop.com/api/x", want: "403"},
			{line: "DELETE shop.com/x", want: "200 shop /x"},
			{line: "GET shop.com/admin/x", want: "403"},
			{line: "GET shop.com/administer", want: "403"},
			{line: "GET shop.com/old", want: "301 http://shop.com/new"},
		},
	}.run(t)
}

func TestImportFromNginx(t *testing.T) {
	imports{
		origin:  "nginx",
		program: func(t *testing.T) string { return debian(t, "nginx") },
		args: func(dir string) []string {
			return []string{"-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf")}
		},
		servers: []string{"shop", "api", "images"},
		files: []string{`nginx.conf
daemon off;
user root;
pid nginx.pid;
error_log stderr warn;
events { }
http {
    access_log off;
    absolute_redirect off;
    proxy_set_header Host $host;
    include servers.conf;
}
`, `servers.conf
upstream shop { least_conn; server SERVER-shop weight=10 max_fails=3; keepalive 8; }
upstream api { server SERVER-api; }
upstream images { server SERVER-images; }
server {
    listen ADDRESS;
    server_name shop.com www.shop.com;
    if ($host = www.shop.com) { return 301 http://shop.com$request_uri; }
    rewrite ^/old/(.*)$ /new/$1 permanent;
    location / { proxy_pass http://shop; proxy_set_header X-Script-Name test; proxy_set_header Host $host; }
    location = /exact { proxy_pass http://api; }
    location /api { proxy_pass http://api; }
    location /api/v1/ { proxy_pass http://api/v2/; add_header X-Frame-Options DENY; }
    location /app { proxy_pass http://api/x; }
    location ^~ /files/ { proxy_pass http://api; }
    location ~* \.(png|jpg)$ { proxy_pass http://images; }
    location ~ ^/users/([0-9]+) { proxy_pass http://api/people/$1$is_args$args; }
    location ~ /\.git { deny all; }
    location /staff { auth_basic Staff; auth_basic_user_file DIRECTORY/users; proxy_pass http://shop; }
    location /office { allow 10.0.0.0/8; deny all; proxy_pass http://shop; }
    location /here { deny 10.0.0.0/8; allow 127.0.0.0/8; deny all; proxy_pass http://shop; }
    location /item { rewrite ^/item/([0-9]+)$ /items?id=$1 break; proxy_pass http://shop; }
    location /moved { return 302 http://shop.com/new$uri; }
    location /gone { return 410 gone; }
    location /small { client_max_body_size 5; proxy_pass http://shop; }
}
server {
    listen ADDRESS;
    server_name *.other.com;
    location / { proxy_pass http://images; }
}
server {
    listen ADDRESS;
    server_name ~^(?<tenant>[a-z]+)\.tenants\.com$;
    location / { proxy_pass http://api; }
    location /x { return 403; }
}
server {
    listen ADDRESS default_server;
    return 301 http://www.shop.com$request_uri;
}
`},
		requests: []request{
			{line: "GET shop.com/a?b=c", want: "200 shop /a?b=c X-Script-Name=test"},
			{line: "GET www.shop.com/a?b=c", want: "301 http://shop.com/a?b=c"},
			{line: "GET shop.com/old/x/y?z=1", want: "301 /new/x/y?z=1"},
			{line: "GET shop.com/exact", want: "200 api /exact"},
			{line: "GET shop.com/exact/x", want: "200 shop /exact/x"},
			{line: "GET shop.com/api", want: "200 api /api"},
			{line: "GET shop.com/apix?y", want: "200 api /apix?y"},
			{line: "GET shop.com/api/v1/x?y=z", want: "200 api /v2/x?y=z X-Frame-Options=DENY",
				sluice: "200 api /v2/x?y=z X-Forwarded-Prefix=/api/v1 X-Frame-Options=DENY"},
			{line: "GET shop.com/app", want: "200 api /x"},
			{line: "GET shop.com/apply/a", want: "200 api /xly/a"},
			{line: "GET shop.com/files/a.png", want: "200 api /files/a.png"},
			{line: "GET shop.com/api/a.PNG", want: "200 images /api/a.PNG"},
			{line: "GET shop.com/users/12/x?y=z", want: "200 api /people/12?y=z"},
			{line: "GET shop.com/x/.git/config", want: "403"},
			{line: "GET shop.com/files/.git", want: "200 api /files/.git"},
			{line: "GET shop.com/staff", want: "401"},
			{line: "GET shop.com/staff", fields: withPassword, want: "200 shop /staff"},
			{line: "GET shop.com/staff/a.jpg", want: "200 images /staff/a.jpg"},
			{line: "GET shop.com/office", want: "403"},
			{line: "GET shop.com/here/x", want: "200 shop /here/x"},
			{line: "GET shop.com/item/7", want: "200 shop /items?id=7"},
			{line: "GET shop.com/moved/x", want: "302 http://shop.com/new/moved/x"},
			{line: "GET shop.com/gone", want: "410"},
			{line: "POST shop.com/small", body: "12345", want: "200 shop /small"},
			{line: "POST shop.com/small", body: "123456", want: "413"},
			{line: "GET a.b.other.com/x", want: "200 images /x"},
			{line: "GET ann.tenants.com/y", want: "200 api /y"},
			{line: "GET ann.tenants.com/x", want: "403"},
			{line: "GET none.com/x?y=z", want: "301 http://www.shop.com/x?y=z"},
		},
	}.run(t)
}
