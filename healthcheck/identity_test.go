package healthcheck

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"sluice/discovery"
	"sluice/discovery/locality"
	"sluice/test/verify"
)

// An answer that says that it is from somebody else fails a check, whatever else it says. One that
// does not say is from anybody.
func TestAnswersOfOthersFail(t *testing.T) {
	registered := discovery.Instance{Service: "star", ID: "star-1", Registered: 7}
	slash, sidecar, fixed := registered, registered, registered
	slash.ID, sidecar.Kind, fixed.Registered = "db/a b", "connect-proxy", 0
	star := Target{Instance: registered}
	for _, test := range []struct {
		target Target
		said   []string
		status int
		want   string
	}{
		{star, nil, 200, ""},
		{star, []string{"star"}, 200, ""},
		{star, []string{"star/star-1"}, 200, ""},
		{star, []string{"moon/moon-1, star/star-1"}, 200, ""},
		{star, []string{"moon/moon-1", "star"}, 200, ""},
		{star, []string{"star/star-1"}, 500, "status 500, want 200-299"},
		{star, []string{"star/star-2"}, 200, `another service answers: "star/star-2"`},
		{star, []string{"moon/star-1"}, 500, `another service answers: "moon/star-1"`},
		{star, []string{"stars", "Star/star-1"}, 200, `another service answers: "stars, Star/star-1"`},
		{Target{Instance: slash}, []string{"star/db/a b"}, 200, ""},
		{Target{}, []string{"moon"}, 200, ""},
		// An application knows its names in the registry, and no others.
		{Target{Instance: sidecar}, []string{"moon"}, 200, ""},
		{Target{Instance: fixed}, []string{"moon"}, 200, ""},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["X-Consul-Service"] = test.said
			w.WriteHeader(test.status)
		}))
		test.target.Address, test.target.Control = server.Listener.Addr().String(), locality.ByOperator
		for _, reuse := range []bool{false, true} {
			p, got := newHTTP(HTTPOptions{Reuse: reuse}), ""
			for range 2 {
				if err := p.Check(t.Context(), test.target); err != nil {
					got = err.Error()
				}
			}
			verify.Equal(t, got, test.want, "%+v, answered by %q", test.target, test.said)
			p.Close()
		}
		server.Close()
	}
}
