package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/route/pages"
	"sluice/test/verify"
)

func TestRefusedAnswers(t *testing.T) {
	dir := t.TempDir()
	large, empty, page := filepath.Join(dir, "large"), filepath.Join(dir, "empty"), filepath.Join(dir, "page")
	for path, text := range map[string]string{large: strings.Repeat("x", pages.MaxBytes+1), empty: "", page: "page"} {
		verify.Succeeds(t, os.WriteFile(path, []byte(text), 0o600))
	}
	for _, test := range []struct{ route, want string }{
		{"direct_response: { file: " + dir + "/none }", "sluice.yaml:3: routes[0].direct_response.file: value \"" + dir + "/none\": cannot be used: "},
		{"direct_response: { file: " + large + " }", "larger than 1048576 bytes: want a file of up to 1048576 bytes"},
		{"direct_response: { file: " + page + ", body: x }", "routes[0].direct_response.file: value \"" + page + "\": not with body: want one of them"},
		{"direct_response: { status: 204, body: x }", `routes[0].direct_response.status: value "204": not with a body`},
		{"direct_response: { status: 100 }", `routes[0].direct_response.status: value "100": want a whole number from 200 to 599`},
		{"direct_response: { headers: { Content-Type: x } }", "routes[0].direct_response.headers.Content-Type: want content_type instead"},
		{"direct_response: { headers: { Content-Length: '1' } }", "routes[0].direct_response.headers.Content-Length: cannot be edited: it frames the body"},
		{"direct_response: { body: x, content_type: html }", "want a media type such as text/html"},
		{"service: star, error_pages: [{ status: '503', file: " + empty + " }]", "sluice.yaml:3: routes[0].error_pages[0].file: value \"" + empty + "\": cannot be used: " + empty + " is empty"},
		{"service: star, error_pages: [{ status: '200-500', file: " + page + " }]", `routes[0].error_pages[0].status: value "200-500": want statuses of errors, from 400 to 599`},
		{"service: star, cors: { allow_origins: ['*'], allow_credentials: true }", `sluice.yaml:3: routes[0].cors.allow_origins: value "*": not with allow_credentials`},
		{"service: star, cors: { allow_origins: ['https://a.example/'] }", `routes[0].cors.allow_origins: value "https://a.example/": want SCHEME://HOST`},
		{"service: star, methods: [GET], cors: { allow_origins: ['*'] }", `sluice.yaml:3: routes[0].methods: value "GET": want OPTIONS too`},
		{"service: star, response_headers: { set: { Access-Control-Max-Age: '1' } }, cors: { allow_origins: ['*'] }", "routes[0].response_headers.set.Access-Control-Max-Age: cannot be edited: cors writes it"},
		{"direct_response: { headers: { Access-Control-Allow-Origin: '*' } }, cors: { allow_origins: ['https://a.example'] }", "routes[0].direct_response.headers.Access-Control-Allow-Origin: cannot be edited: cors writes it"},
	} {
		refuses(t, "services: { star: { consul: {} } }\nroutes:\n- { "+test.route+" }", test.want)
	}
	refuses(t, "client:\n  error_pages: [{ status: 5xx, file: "+dir+"/none }]\nroutes: [{ direct_response: {} }]", "sluice.yaml:2: client.error_pages[0].file")
}

// A route to the admin API says who may ask, whatever tokens the API has: those in use may be of an
// earlier configuration.
func TestRoutesToTheAdminAPIAreRestricted(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	verify.NoError(t, os.WriteFile(token, []byte("s3cret"), 0o600))
	for text, allowed := range map[string]bool{
		"routes: [{ admin_api: read }]":                                                                                                       false,
		"routes: [{ admin_api: read, deny: [10.0.0.0/8] }]":                                                                                   false,
		"routes: [{ admin_api: read, allow: [10.0.0.0/8] }]":                                                                                  true,
		"routes: [{ admin_api: read, client_certificate: required }]":                                                                         true,
		"admin: { token_file: " + token + " }\nroutes: [{ admin_api: read }]":                                                                 false,
		"services: { a: { peers: ['127.0.0.1:1'] } }\nactions: { look: { admin_api: read } }\nroutes: [{ use: [look] }]":                      false,
		"services: { a: { peers: ['127.0.0.1:1'] } }\nactions: { look: { admin_api: read, allow: [10.0.0.0/8] } }\nroutes: [{ use: [look] }]": true,
	} {
		_, err := Parse("sluice.yaml", []byte(text))
		verify.Equal(t, err == nil, allowed, "%s: %v", text, err)
		verify.That(t, allowed || strings.Contains(err.Error(), `routes[0].admin_api: value "read": everybody could read`), "%s: %v", text, err)
	}
}

// A configuration whose routes only redirect and answer needs no service.
func TestRoutesWithoutServices(t *testing.T) {
	const own = "routes: [{ path: /ping, direct_response: { body: pong } }, { redirect: { to: 'https://$host$path' } }"
	mustParse(t, own+"]")
	for _, route := range []string{"redirect: { regexp: a, to: /b }", "service: star"} {
		refuses(t, own+", { path: /a, "+route+" }]", "sluice.yaml: services: empty: want at least one")
	}
}

func TestOnlyTheFileNamesPages(t *testing.T) {
	for _, key := range []string{"direct_response", "error_pages"} {
		verify.Equal(t, Setter(allRights().At("routes").At(key).At("file").Setters), ByFile, "who may set routes[].%s.file", key)
	}
	verify.Equal(t, Setter(allRights().At("client").At("error_pages").Setters), ByFile, "who may set client.error_pages")
}
