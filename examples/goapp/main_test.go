package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"sluice/test/consultest"
	"sluice/test/verify"
)

// await waits until Consul lists as many instances of star as wanted, all of them
// passing, and returns them.
func await(t *testing.T, agent *consultest.Agent, want int) (instances []*api.ServiceEntry) {
	t.Helper()
	consultest.Await(t, fmt.Sprintf("%d instances pass", want), func() bool {
		var err error
		instances, _, err = agent.Client().Health().Service("star", "", false, nil)
		return err == nil && len(instances) == want &&
			!slices.ContainsFunc(instances, func(e *api.ServiceEntry) bool { return e.Checks.AggregatedStatus() != api.HealthPassing })
	})
	return instances
}

func TestAppRegistersServesAndDeregisters(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, options{name: "star", address: "127.0.0.1", consul: agent.URL()}) }()
	defer func() {
		cancel()
		verify.Succeeds(t, <-ended)
		await(t, agent, 0)
	}()

	app := await(t, agent, 1)[0].Service
	verify.That(t, strings.HasPrefix(app.ID, "star-") && app.Address == "127.0.0.1", "registered as %s at %s", app.ID, app.Address)
	response := verify.Result(http.Get("http://127.0.0.1:" + strings.TrimPrefix(app.ID, "star-") + "/any/path")).Must(t)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	verify.That(t, err == nil && strings.Contains(string(body), "Hello from "+app.ID) && response.Header.Get("X-App") == app.ID, "answer %q, %v", body, err)
}

func TestWithoutConsulItServes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	port := consultest.ReservePort(t)
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, options{name: "star", address: "127.0.0.1", port: port, consul: "http://127.0.0.1:1"})
	}()
	consultest.Await(t, "it serves", func() bool {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/health", port))
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	cancel()
	verify.Succeeds(t, <-ended)
}
