package tags

import (
	"testing"

	"sluice/test/verify"
)

func TestMasked(t *testing.T) {
	for tag, want := range map[string]string{
		"Traefik.http.middlewares.m.basicAuth.Users =ada:$apr1$a==": "Traefik.http.middlewares.m.basicAuth.Users =***",
		"traefik.http.middlewares.m.digestauth.users=ada:x:y":       "traefik.http.middlewares.m.digestauth.users=***",
		"traefik.http.middlewares.m.basicauth.usersfile=/x":         "traefik.http.middlewares.m.basicauth.usersfile=/x",
		"sluice.route=/auth.users":                                  "sluice.route=/auth.users",
		"auth.users":                                                "auth.users",
	} {
		verify.Equal(t, Masked(tag), want, "%s", tag)
	}
}
