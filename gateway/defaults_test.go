package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"sluice/config"
	"sluice/consul"
	"sluice/test/discoverytest"
	"sluice/test/subprocess"
	"sluice/test/verify"
)

// A change of the defaults reaches the services and routes of the file, of a document and of tags
// alike, and no peer begins anew.
func TestDefaultsChange(t *testing.T) {
	t.Parallel()
	serve := func() string { return origin(t, "hello") }
	consul := discoverytest.Start(t)
	consul.Set("tagged", withTags(t, "tagged", "tagged-1", serve(), "urlprefix-tagged/"))
	document := t.TempDir() + "/a.yaml"
	replaceFile(t, document, fmt.Sprintf("services: { document: { peers: [%q] }, own: { peers: [%q], balance: { policy: random } } }\n"+
		"routes: [{ host: document, service: document }, { host: own, service: own, response_headers: null }]", serve(), serve()))
	file := serve()
	text := func(service, route string) string {
		return fmt.Sprintf(`
consul: { addresses: [%q] }
catalog: { tags: [fabio] }
dynamic: [{ file: %q }]
defaults: { service: { timeouts: { connect: 5m }%s }, route: { %s } }
services: { file: { peers: [%q] } }
routes: [{ host: file, service: file }]
`, consul.URL(), document, service, route, file)
	}
	r := start(t, text("", ""))
	expect := func(want string) {
		t.Helper()
		for host, want := range map[string]string{"file": want, "document": want, "tagged": want, "own": ""} {
			r.await(host+" has the default "+want, func() bool {
				got := r.do(r.request(http.MethodGet, r.url("web")+"/", nil, "Host", host))
				cookie, _, _ := strings.Cut(got.Header.Get("Set-Cookie"), "=")
				return got.StatusCode == http.StatusOK && got.Header.Get("X-Default") == want && cookie == want
			})
		}
	}
	expect("")
	before := r.peers()
	for _, name := range []string{"a", "b"} {
		r.write(text(", balance: { policy: sticky, sticky: { cookie: "+name+" } }", "response_headers: { set: { X-Default: "+name+" } }"))
		expect(name)
	}
	for address, p := range r.peers() {
		verify.That(t, p.Requests > before[address].Requests, "the peer %s has begun anew: %+v, before %+v", address, p, before[address])
	}
}

// The name of --service may be misspelled. The first answer of Consul is an error.
func TestUnknownServiceIsTold(t *testing.T) {
	t.Parallel()
	fake := discoverytest.Start(t)
	fake.Set("star", withTags(t, "star", "star-1", "127.0.0.1:1"))
	var failed atomic.Bool
	fake.Break(discoverytest.Fault{Status: http.StatusInternalServerError, Only: func(discoverytest.Request) bool { return failed.CompareAndSwap(false, true) }})
	for _, test := range []struct{ name, want string }{
		{"stra", `consul: there is no service with this name, did you mean \"star\"?`}, {"nosuch", "consul: there is no service with this name"}, {"star", ""}, {"STAR", ""},
	} {
		log := new(subprocess.Output)
		client := verify.Result(consul.New(consul.Options{Addresses: []string{fake.URL()}})).Must(t)
		(&registries{consul: client, config: func() *config.Config { return new(config.Config) }, log: zerolog.New(log)}).warnUnknown(t.Context(), test.name)
		verify.That(t, (log.String() == "") == (test.want == "") && strings.Contains(log.String(), test.want), "%s: the log is %q, want %q", test.name, log, test.want)
	}
}
