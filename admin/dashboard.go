package admin

import (
	_ "embed"
	"net/http"
)

//go:embed dashboard.html
var dashboardPage []byte

// dashboard answers /. The page holds no data; it asks the API for it, with a
// token if one is needed.
func dashboard(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy",
		"default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Write(dashboardPage)
}
