package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/test/verify"
)

// The token for looking gives no orders, and says so. TestOpenAPIHasEveryEndpoint has which token
// each path wants.
func TestTokenForLooking(t *testing.T) {
	h := handlerOf(Options{Tokens: func() Tokens { return Tokens{Operate: "s3cret", Look: "scraper"} }})
	const order = "/api/peers/star/a/drain" // there is no such service
	for token, may := range map[string]bool{"scraper": false, "s3cret": true} {
		status, body := get(t, h, "/api/orders", "Authorization", "Bearer "+token)
		verify.That(t, status == http.StatusOK && decode[Orders](t, body).MayOrder == may, "may_order with the token %s: %d %s", token, status, body)
		r := httptest.NewRequest(http.MethodPost, order, nil)
		r.Header.Set("Authorization", "Bearer "+token)
		w := answerOf(h, r)
		challenge := w.Header().Get("WWW-Authenticate")
		verify.Equal(t, w.Code, map[bool]int{false: http.StatusForbidden, true: http.StatusNotFound}[may], "an order with the token %s", token)
		verify.Equal(t, strings.Contains(challenge, `error="insufficient_scope", scope="operate"`), !may, "the challenge is %q", challenge)
	}
}
