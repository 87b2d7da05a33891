package routes

import (
	"testing"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/route"
	"sluice/test/verify"
)

func TestWaitsOfServices(t *testing.T) {
	s := Service("a", nil, config.Service{ServiceSettings: config.ServiceSettings{WaitForPeer: 1, Limits: config.Limits{Limits: balancer.Limits{ConnectionWait: 2}}}})
	verify.That(t, s.WaitForPeer == 1 && s.ConnectionWait == 2, "waits %v and %v", s.WaitForPeer, s.ConnectionWait)
}

// The settings of a route replace the settings of its service, key by key.
func TestSettingsOfRoutes(t *testing.T) {
	service := &route.Service{
		Name:     "a",
		Timeouts: route.Timeouts{Connect: 1, ResponseHeader: 2, Idle: 3, Tunnel: 4},
		Retry:    route.Retry{Attempts: 2, PerTryTimeout: 5, BodyBytes: 6},
	}
	before := *service
	verify.That(t, withSettings(service, &config.Route{}) == service, "a route without settings has a service of its own")
	five, hour, none := 5, time.Hour, config.Size(0)
	got := withSettings(service, &config.Route{Actions: config.Actions{
		Timeouts: &config.RouteTimeouts{Idle: &hour}, Retry: &config.RouteRetry{Attempts: &five, Body: &none},
	}})
	want := before
	want.Timeouts.Idle, want.Retry.Attempts, want.Retry.BodyBytes = hour, 5, 0
	verify.That(t, *got == want && *service == before, "got %+v, want %+v", *got, want)
}
