package routes

import (
	"reflect"
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

func TestAffinityOfPolicies(t *testing.T) {
	sticky := config.Sticky{Cookie: "c", Path: "/", SameSite: "lax"}
	header, path := route.HashKey{Source: route.HashHeader, Name: "x-user"}, route.HashKey{Source: route.HashPath}
	f := func(b config.Balance, want *route.Affinity) {
		t.Helper()
		got := affinityOf(b)
		verify.That(t, reflect.DeepEqual(got, want), "%+v:\n got  %+v\n want %+v", b, got, want)
	}
	f(config.Balance{Policy: "ewma", Sticky: sticky}, nil)
	f(config.Balance{Policy: "hash", Hash: config.Hash{Keys: []config.HashKey{{Value: header}, {Value: path}}}, Sticky: sticky}, &route.Affinity{
		Keys: []route.HashKey{header, path},
	})
	f(config.Balance{Policy: "sticky", Sticky: sticky}, &route.Affinity{Cookie: "c", CookieAttributes: "; Path=/; HttpOnly; SameSite=Lax"})
	f(config.Balance{Policy: "sticky", Sticky: config.Sticky{
		Cookie: "c", Path: "/a", Domain: "example.com", MaxAge: time.Hour, Secure: true, SameSite: "none",
	}}, &route.Affinity{
		Cookie: "c", CookieAttributes: "; Path=/a; Domain=example.com; Max-Age=3600; HttpOnly; SameSite=None", RefreshCookie: true, SecureCookie: true,
	})
}
