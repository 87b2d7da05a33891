package routes

import (
	"reflect"
	"testing"
	"time"

	"sluice/config"
	"sluice/route"
	"sluice/test/verify"
)

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
