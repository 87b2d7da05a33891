package consul

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// An agent may register a service, and then fail to list its obsolete checks.
func TestErrRegisteredReportsThatTheAgentHasTheService(t *testing.T) {
	for _, c := range []struct {
		name     string
		fails    string // path
		taken    bool
		obsolete []string
	}{
		{"first request", "/v1/agent/service/register", false, []string{"former"}},
		{"later request", "/v1/agent/checks", true, []string{"former"}},
		{"no error", "/v1/agent/checks", false, nil}, // not queried
	} {
		t.Run(c.name, func(t *testing.T) {
			client := clientOf(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case c.fails:
					http.Error(w, "rpc error", http.StatusInternalServerError)
				case "/v1/status/leader":
					io.WriteString(w, `"127.0.0.1:8300"`)
				}
			})
			err := client.Register(t.Context(), client.URL(), &api.AgentServiceRegistration{ID: "s", Name: "s"}, c.obsolete...)
			wrong := c.name != "no error"
			verify.That(t, (err != nil) == wrong && errors.Is(err, ErrRegistered) == c.taken, "error %v", err)
			verify.That(t, !c.taken || strings.Contains(err.Error(), "consul "+client.URL()+": 500"), "error %v", err)
		})
	}
}

// What an agent answers may lack what it should have.
func TestRegistrationsWithoutServices(t *testing.T) {
	client := clientOf(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/agent/services" {
			io.WriteString(w, `{"a":null,"b":{"ID":"b"}}`)
			return
		}
		io.WriteString(w, `[null,{},{"Service":{"ID":"b"},"Checks":[null]}]`)
	})
	services, err := client.Registered(t.Context(), client.URL(), "owner", "me")
	verify.That(t, err == nil && len(services) == 1 && services[0].ID == "b", "registered %v, %v", services, err)
	listed, err := client.Listed(t.Context(), client.URL(), "star", "owner", "me")
	verify.That(t, err == nil && len(listed) == 1 && listed[0].Service.ID == "b" && len(listed[0].Checks) == 0, "listed %v, %v", listed, err)
}

// With rare probes, a failed request to register is what tells of an outage, and so Changed
// of its end.
func TestFailedRegistrationTellsOfTheRecovery(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	client := clientOf(t, Options{ProbeInterval: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, `"127.0.0.1:8300"`)
	})
	t.Cleanup(client.KeepProbing())
	consultest.Await(t, "a probe", func() bool { return client.Stats().Probes > 0 })
	down.Store(true)
	err := client.Register(t.Context(), client.URL(), &api.AgentServiceRegistration{ID: "s", Name: "s"})
	verify.That(t, err != nil, "no error")
	consultest.Await(t, "the agent is not healthy", func() bool { return !client.Healthy() })
	changed := client.Changed()
	down.Store(false)
	consultest.Await(t, "the recovery is told", func() bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	})
}
