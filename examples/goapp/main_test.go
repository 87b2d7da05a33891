package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"sluice/consultest"
)

// instances waits until the catalog has as many instances of star as wanted,
// all of them passing.
func instances(t *testing.T, consul *api.Client, want int) []*api.ServiceEntry {
	t.Helper()
	q := (&api.QueryOptions{WaitTime: time.Second}).WithContext(t.Context())
	for end := time.Now().Add(30 * time.Second); ; {
		passing, meta, err := consul.Health().Service("star", "", true, q)
		if err != nil {
			t.Fatal(err)
		}
		if len(passing) == want {
			return passing
		}
		if time.Now().After(end) {
			t.Fatalf("%d passing instances, want %d", len(passing), want)
		}
		q.WaitIndex = meta.LastIndex
	}
}

func TestAppRegistersServesAndDeregisters(t *testing.T) {
	agent := consultest.Start(t, consultest.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, options{name: "star", address: "127.0.0.1", consul: agent.URL()}) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		instances(t, agent.Client(), 0)
	}()

	app := instances(t, agent.Client(), 1)[0].Service
	if !strings.HasPrefix(app.ID, "star-") || app.Address != "127.0.0.1" {
		t.Errorf("registered as %s at %s", app.ID, app.Address)
	}
	response, err := http.Get("http://127.0.0.1:" + strings.TrimPrefix(app.ID, "star-") + "/any/path")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || !strings.Contains(string(body), "Hello from "+app.ID) || response.Header.Get("X-App") != app.ID {
		t.Errorf("answer %q, %v", body, err)
	}
}

func TestWithoutConsulItSaysSo(t *testing.T) {
	err := run(t.Context(), options{name: "star", address: "127.0.0.1", consul: "http://127.0.0.1:1"})
	if err == nil || !strings.Contains(err.Error(), "register star-") {
		t.Errorf("error %v, want one that says what failed", err)
	}
}
