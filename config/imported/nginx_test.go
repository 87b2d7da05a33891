package imported

import (
	"fmt"
	"strings"
	"testing"

	"sluice/tags"
	"sluice/test/verify"
)

// read returns the draft of files of nginx, each "NAME TEXT".
func read(t *testing.T, texts ...string) *draft {
	t.Helper()
	d := &draft{sections: make(tags.Keys), places: make(map[string]Place), noted: make(map[string]bool), parts: make(map[string][]*part)}
	var files []File
	for _, text := range texts {
		name, text, _ := strings.Cut(text, " ")
		files = append(files, File{name, text})
	}
	verify.Succeeds(t, readNginx(d, files))
	return d
}

// texts returns the keys of parts, without those that are not asked for.
func texts(parts []*part, without ...string) (all []string) {
	for _, p := range parts {
		keys := p.keys.Clone()
		for _, key := range without {
			delete(keys, key)
		}
		all = append(all, strings.TrimSpace(p.name+" "+strings.ReplaceAll(keys.String(), `"`, "'")))
	}
	return all
}

const denied = `{'deny':['0.0.0.0/0','::/0'],'direct_response':{'status':'403'}}`

func TestNginxLocations(t *testing.T) {
	for _, test := range []struct{ location, route string }{
		{"location / { proxy_pass http://s; }", `{'host_header':'s','service':'s'}`},
		{"location / { proxy_pass http://s; proxy_set_header Host $host; }", `{'service':'s'}`},
		{"location / { proxy_pass http://s; proxy_set_header Host a.com; }", `{'host_header':'a.com','service':'s'}`},
		{"location / { proxy_pass http://s/; }", `{'host_header':'s','service':'s'}`},
		{"location / { proxy_pass http://s/v1; }", `{'host_header':'s','rewrite':{'regexp':'^/(.*)$','to':'/v1$1'},'service':'s'}`},
		{"location /a { proxy_pass http://s; }", `{'host_header':'s','match':'string_prefix','path':'/a','service':'s'}`},
		{"location /a/ { proxy_pass http://s/; }", `{'host_header':'s','match':'string_prefix','path':'/a/','service':'s','strip_prefix':'/a'}`},
		{"location /a/ { proxy_pass http://s/v1/; }", `{'add_prefix':'/v1','host_header':'s','match':'string_prefix','path':'/a/','service':'s','strip_prefix':'/a'}`},
		{"location /a { proxy_pass http://s/v1; }", `{'host_header':'s','match':'string_prefix','path':'/a','rewrite':{'regexp':'^/a(.*)$','to':'/v1$1'},'service':'s'}`},
		{"location =/a { proxy_pass http://s/v1; }", `{'host_header':'s','match':'exact','path':'/a','rewrite':{'regexp':'^.*$','to':'/v1'},'service':'s'}`},
		{"location ~* ^/a/(.*) { proxy_pass http://s/v1/$1$is_args$args; }", `{'host_header':'s','match':'regexp','path':'(?i)^/a/(.*)','rewrite':{'regexp':'(?i)^/a/(.*)','to':'/v1/${1}'},'service':'s'}`},
		{"location / { proxy_pass http://$to; }", denied},
		{"location / { proxy_pass http://10.0.0.1:80/$to; }", denied},
		{"location / { root /var/www; }", denied},
		{"location / { rewrite ^/a/(.*)$ /b/$1?c=d break; proxy_pass http://s; }", `{'host_header':'s','rewrite':{'regexp':'^/a/(.*)$','to':'/b/${1}?c=d'},'service':'s'}`},
		{"location / { return 301 https://a.com$request_uri; }", `{'redirect':{'code':'301','to':'https://a.com$path'}}`},
		{"location / { return https://$http_host/x$is_args$args; }", `{'redirect':{'code':'302','to':'https://$authority/x'}}`},
		{"location / { return 301 https://$server_name$uri; }", denied},
		{`location ~ ^/a/(\d+)$ { return 302 /b/$1/; }`, `{'match':'regexp','path':'^/a/(\\d+)$','redirect':{'code':'302','to':'/$path'},'rewrite':{'regexp':'^/a/(\\d+)$','to':'/b/${1}/'}}`},
		{"location / { rewrite ^(.*)$ https://a.com$1 permanent; }", `{'redirect':{'code':'301','to':'https://a.com$path'},'rewrite':{'regexp':'^(.*)$','to':'${1}'}}`},
		{"location / { rewrite ^ https://$host$request_uri? redirect; }", `{'redirect':{'code':'302','to':'https://$host$path'}}`},
		{"rewrite ^/x /y last; location / { proxy_pass http://s; }", `{'deny':['0.0.0.0/0','::/0'],'direct_response':{'status':'403'},'match':'regexp','path':'^/x'}`},
		{"location / { default_type text/html; add_header X-A b; return 200 'it is $host'; }", `{'direct_response':{'body':'it is $host','content_type':'text/html','status':'200'}}`},
		{"location / { return 444; }", denied},
		{"location / { internal; return 200 secret; }", denied},
		{"location / { rewrite ^ https://a.com break; proxy_pass http://s; }", `{'redirect':{'code':'302','to':'https://a.com'}}`},
		{"if ($host = a.com) { return 301 https://$host$request_uri; } return 404;", `{'host':'a.com','redirect':{'code':'301','to':'https://$host$path'}}`},
		{"location / { if ($http_x_key = '') { return 401; } proxy_pass http://s; }", denied},
		{"location / { if ($cookie_a) { set $b c; } proxy_pass http://s; }", `{'host_header':'s','service':'s'}`},
		{"location 'a\nb' { return 404; }", `{'direct_response':{'status':'404'},'match':'string_prefix','path':'a\nb'}`},
		{"location / { return 404; }", `{'direct_response':{'status':'404'}}`},
		{"location / { proxy_pass http://s; proxy_set_header Host $host; add_header X-A b; add_header X-B $host always; proxy_hide_header X-C; }",
			`{'response_headers':{'add':{'X-A':'b','X-B':'$host'},'remove':['X-C']},'service':'s'}`},
		{"location / { proxy_pass http://s; proxy_set_header Host $http_host; proxy_set_header X-A ''; proxy_set_header X-B $remote_addr; proxy_set_header X-C $ssl_client_verify; }",
			`{'request_headers':{'remove':['X-A','X-C'],'set':{'X-B':'$client_address'}},'service':'s'}`},
		{"proxy_set_header Host $host; location / { proxy_pass http://s; proxy_connect_timeout 500ms; proxy_read_timeout 2d; client_max_body_size 0; }",
			`{'body_limit':null,'service':'s','timeouts':{'connect':'500ms','idle':'48h','response_header':'48h','tunnel':'48h'}}`},
		{"proxy_set_header Host $host; location / { proxy_pass http://s; limit_req zone=b burst=7; gzip on; }",
			`{'compress':{},'rate_limit':{'burst':'7','per':'1m','rate':'9'},'service':'s'}`},
		{"proxy_set_header Host $host; location / { proxy_pass http://s; deny 10.0.0.0/8; allow 10.1.2.3/24; deny all; }", `{'allow':['10.1.2.0/24'],'deny':['10.0.0.0/8'],'service':'s'}`},
	} {
		d := read(t, "f limit_req_zone $http_api_key zone=b:1m rate=9r/m; upstream s { server 10.0.0.1; } server { "+test.location+" }")
		if len(d.parts["routes"]) > 1 { // of a location that is not everything
			d.parts["routes"] = d.parts["routes"][:1]
		}
		verify.Equal(t, strings.Join(texts(d.parts["routes"], "listeners", "priority"), "\n"), test.route, "%s", test.location)
	}
}

func TestNginxUpstreams(t *testing.T) {
	for _, test := range []struct{ text, services string }{
		{"upstream s { server a.com weight=3; server unix:/run/s; random two; }", `s {'balance':{'policy':'random'},'peers':['a.com:80 weight=3','unix:/run/s']}`},
		{"upstream s { server [::1]; server 10.0.0.1:81 max_fails=0 fail_timeout=1m max_conns=9; keepalive 10; }",
			`s {'health':{'passive':{'consecutive_failures':'0','ejection':'1m'}},'limits':{'connections_per_peer':'9'},'peers':['[::1]:80','10.0.0.1:81']}`},
		{"upstream s { ip_hash; server _s._tcp.service.consul resolve; }", `s {'balance':{'policy':'hash'},'consul':{'service':'s'}}`},
		{"upstream s { server 10.0.0.1 down; }", ""},
		{"upstream s { server 10.0.0.1; } server { location / { proxy_pass https://s; } location /a { proxy_pass http://s; } }",
			`s {'peers':['10.0.0.1:80'],'upstream':{'tls':{'skip_verify':'true'}}}` + "\n" + `s-2 {'peers':['10.0.0.1:80']}`},
		{"server { location / { proxy_pass https://a.com; proxy_ssl_verify on; proxy_ssl_trusted_certificate ca.pem; proxy_ssl_name b.com; } }",
			`a.com {'peers':['a.com:443'],'upstream':{'tls':{}}}`},
		{"server { location / { proxy_pass http://unix:/run/a.sock:/x/; } }", `run/a.sock {'peers':['unix:/run/a.sock']}`},
	} {
		verify.Equal(t, strings.Join(texts(read(t, "f "+test.text).parts["services"]), "\n"), test.services, "%s", test.text)
	}
}

// As in nginx: the exact path, then the longest one, which wins at once with ^~, then expressions
// in their order. Without expressions and patterns, sluice chooses in the same way by itself.
func TestNginxChoosesALocation(t *testing.T) {
	locations := func(paths ...string) (text string) {
		for _, path := range paths {
			text += "location " + path + " { proxy_pass http://10.0.0.1; }"
		}
		return text
	}
	for _, test := range []struct{ text, routes string }{
		{"server { " + locations("/", "/a", "/a/b", "= /a") + " }", "/a /a/b /a /"},
		{"server { " + locations("/", "/a", "~ x", "^~ /b", "/b/c", "~* y", "= /a") + " }", "/a:999999 /b/c!:999998 /b:999997 x:999996 (?i)y:999995 /a:999994 /:999993"},
		{"server { " + locations("/a") + " }", "/a /!"},
		{"server { server_name a.com; " + locations("/") + " } server { server_name *.a.com .b.com; " + locations("/a") + " }",
			"a.com/ b.com/a b.com/! *.a.com/a *.a.com/! *.b.com/a *.b.com/!"},
		{"server { return 404; } server { server_name ~^x.*y b.*; " + locations("/") + " } server { server_name B.com b.com; " + locations("/") + " }",
			`b.com/:999999 ^b\..+$/:999998 ^x.*y/:999997 /:999996`},
		{"server { listen 81; " + locations("/") + " } server { listen 80; listen 82; server_name a.com; " + locations("/") + " } server { listen 80 default_server; return 301 https://$host$request_uri; }",
			"a.com/ / / a.com/"},
		{"server { server_name a.com; if ($host = a.com) { return 301 https://$host$request_uri; } return 404; } server { server_name ~a; return 403; }",
			"a.com/:999999 a/!:999998"},
	} {
		d := read(t, "f "+test.text)
		var routes []string
		for _, p := range d.parts["routes"] {
			text := func(key string) string { value, _ := p.keys[key].(string); return value }
			path := text("path")
			if path == "" {
				path = "/"
			}
			route := text("host") + text("host_regexp") + path
			if p.keys["deny"] != nil {
				route += "!"
			}
			if text("priority") != "" {
				route += ":" + text("priority")
			}
			routes = append(routes, route)
		}
		verify.Equal(t, strings.Join(routes, " "), test.routes, "%s\n%s", test.text, strings.Join(texts(d.parts["routes"]), "\n"))
	}
}

// A port of nginx with quic becomes a listener with HTTP/3, which sends Alt-Svc by itself.
func TestNginxHTTP3(t *testing.T) {
	d := read(t, "f server { listen 443 ssl; listen 443 quic reuseport; http3 on; ssl_certificate a.pem; ssl_certificate_key a.key; "+
		"add_header Alt-Svc 'h3=\":443\"; ma=86400'; location / { proxy_pass http://10.0.0.1; } }")
	listener := strings.Join(texts(d.parts["listeners"]), "\n")
	verify.That(t, strings.Contains(listener, "'http3':'true'") && strings.Contains(listener, "'tls'"), "the listener: %s", listener)
	verify.That(t, !strings.Contains(strings.Join(texts(d.parts["routes"]), "\n"), "Alt-Svc"), "the route sends Alt-Svc")
	verify.That(t, !strings.Contains(fmt.Sprint(d.notes), "quic") && !strings.Contains(fmt.Sprint(d.notes), "http3"), "notes: %v", d.notes)
}

func TestNginxFiles(t *testing.T) {
	d := read(t, "/etc/nginx/nginx.conf http { include conf.d/*.conf; include /etc/nginx/mime.types; }",
		"conf.d/a.conf upstream s { server 10.0.0.1; } server { include snippets/proxy.conf; }", "snippets/proxy.conf location / { proxy_pass http://s; }")
	verify.Equal(t, strings.Join(texts(d.parts["routes"]), "\n"), `{'host_header':'s','listeners':[':80'],'service':'s'}`, "routes")
	for text, want := range map[string]string{
		"server {":                                  "f:1: it ends within a directive or a block",
		"server\n{ } }":                             "f:2: unexpected }",
		"return 200 'a\n":                           "f:1: unexpected '",
		"upstream s {\n{{ range x }} }":             "f:2: unexpected {; Lua, or a template of consul-template, cannot be read: give the file that it writes",
		"# nothing":                                 "no directives of http",
		strings.Repeat("a { ", maxDepth+2):          "f:1: blocks are too deep, or files include each other",
		strings.Repeat("a;", maxValues+1):           errTooLarge.Error(),
		"a " + strings.Repeat("b", maxWord+1) + ";": errTooLarge.Error(),
	} {
		_, err := Translate("nginx", []File{{"f", text}})
		verify.Equal(t, fmt.Sprint(err), want, "%.40s", text)
	}
}

// A small file may not make a large result.
func TestNginxIsBounded(t *testing.T) {
	names, locations, headers := strings.Repeat("a.com ", 1000), strings.Repeat("location /x { proxy_pass http://10.0.0.1; }", 1000), strings.Repeat("add_header X y;", 1000)
	for i := range 1000 {
		names = strings.Replace(names, "a.com", "x"+strings.Repeat("y", i%50)+".com", 1)
	}
	_, err := Translate("nginx", []File{{"f", "server { } " + headers + "server { server_name " + names + "; " + locations + "}"}})
	verify.That(t, err == errTooLarge, "the error is %v", err)
}
