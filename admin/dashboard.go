package admin

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
)

var (
	//go:embed dashboard.html
	dashboardHTML string
	//go:embed dashboard.css
	dashboardCSS string
	//go:embed dashboard.js
	dashboardJS string

	// dashboardPage is the page in one piece, so that a browser never has parts
	// of two versions.
	dashboardPage = []byte(strings.NewReplacer(
		"<style></style>", "<style>"+dashboardCSS+"</style>",
		"<script></script>", "<script>"+dashboardJS+"</script>",
	).Replace(dashboardHTML))

	// dashboardPolicy allows the page what it has in it and the admin API, and
	// nothing from elsewhere.
	dashboardPolicy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"script-src " + hashOf(dashboardJS) + "; style-src " + hashOf(dashboardCSS)
)

// hashOf returns the hash of an element's text, as a source of a
// Content-Security-Policy.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// dashboard answers /. The page holds no data; it asks the API for it, with a
// token if one is needed.
func dashboard(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", dashboardPolicy)
	w.Write(dashboardPage)
}
