package consul

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

// An agent may take a registration, and fail when it is asked for the checks that
// the service had before.
func TestRegisterSaysWhetherTheAgentHasTheService(t *testing.T) {
	for _, c := range []struct {
		name     string
		fails    string // path
		taken    bool
		obsolete []string
	}{
		{"at once", "/v1/agent/service/register", false, []string{"former"}},
		{"afterwards", "/v1/agent/checks", true, []string{"former"}},
		{"never", "/v1/agent/checks", false, nil}, // it is not asked
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case c.fails:
					http.Error(w, "rpc error", http.StatusInternalServerError)
				case "/v1/status/leader":
					io.WriteString(w, `"127.0.0.1:8300"`)
				}
			}))
			t.Cleanup(server.Close)
			client, err := NewClient(ClientOptions{Addresses: []string{server.URL}})
			must(t, err)
			t.Cleanup(client.Close)
			err = client.Register(t.Context(), server.URL, &api.AgentServiceRegistration{ID: "s", Name: "s"}, c.obsolete...)
			if wrong := c.name != "never"; (err != nil) != wrong || errors.Is(err, ErrRegistered) != c.taken {
				t.Errorf("error %v", err)
			}
			if c.taken && !strings.Contains(err.Error(), "consul "+server.URL+": 500") {
				t.Errorf("error %v", err)
			}
		})
	}
}
