package consul

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"sluice/test/verify"
)

func TestAPIUsesTheSettingsOfOptions(t *testing.T) {
	var token string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("X-Consul-Token")
		_, _ = w.Write([]byte(`"10.0.0.1:8300"`))
	}))
	defer server.Close()
	t.Setenv("CONSUL_HTTP_ADDR", server.Listener.Addr().String())
	t.Setenv("CONSUL_HTTP_TOKEN", "environment")

	for _, test := range []struct{ token, want string }{{"", "environment"}, {"mine", "mine"}} {
		o := Options{Token: test.token}
		addresses, err := o.Agents()
		verify.Require(t, err == nil && len(addresses) == 1, "Agents = %q, %v", addresses, err)
		a := verify.Result(o.API(addresses[0])).Must(t)
		defer a.Close()
		leader, err := a.Status().Leader()
		verify.That(t, err == nil && leader == "10.0.0.1:8300" && token == test.want, "leader %q, %v, with token %q; want %q", leader, err, token, test.want)
		verify.That(t, a.URL == server.URL && !a.Anonymous() && a.Stats().Queries == 1,
			"URL %q, anonymous %v, %+v", a.URL, a.Anonymous(), a.Stats())
	}
}
