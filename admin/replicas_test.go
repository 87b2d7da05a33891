package admin

import (
	"context"
	"net/http"
	"reflect"
	"testing"
	"time"

	"sluice/admin/fleet"
	"sluice/consul/registration"
	"sluice/test/verify"
)

func TestReplicas(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	status := registration.Status{}
	converged := false
	h := handlerOf(Options{Fleet: Fleet{
		Registration: func() registration.Status { return status },
		Replica: func() fleet.Replica {
			return fleet.Replica{Replica: "web1/127.0.0.1:8081", Pending: []string{}, Parts: map[string]string{}}
		},
		Replicas: func(context.Context) fleet.Report {
			return fleet.Report{
				Converged: &converged, Differences: []fleet.Difference{}, Unknown: []fleet.Unknown{},
				Replicas: []fleet.Member{{ID: "a", Status: "passing"}},
			}
		},
	}})
	code, body := get(t, h, "/api/replicas")
	verify.That(t, code == http.StatusNotFound && errorOf(t, body) == "the configuration has no consul.register", "without a registration: %d %s", code, body)
	status = registration.Status{
		State: registration.StateFailing, Since: since, Service: "sluice", ID: "a", Agent: "http://c", Check: registration.CheckTTL,
		LastError: "403", Registrations: 2, Errors: 3,
	}
	got := getJSON[Replicas](t, h, "/api/replicas")
	want := status
	want.Leftovers = []string{}
	verify.That(t, reflect.DeepEqual(got.Registration, want) && !(*got.Converged) && len(got.Replicas) == 1, "got %+v", got)
	verify.Equal(t, getJSON[fleet.Replica](t, h, "/api/replica").Replica, "web1/127.0.0.1:8081", "the replica")
}
