package admin

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
)

//go:embed dashboard.html
var dashboardPage []byte

// dashboardPolicy allows the page what it has in it and the admin API, and
// nothing from elsewhere.
var dashboardPolicy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"script-src '" + hashOf("script") + "'; style-src '" + hashOf("style") + "'"

// hashOf returns the hash of the page's only element of that name, as a
// source of a Content-Security-Policy.
func hashOf(element string) string {
	_, rest, _ := bytes.Cut(dashboardPage, []byte("<"+element+">"))
	content, _, found := bytes.Cut(rest, []byte("</"+element+">"))
	if !found {
		panic("BUG: the dashboard has no <" + element + ">")
	}
	sum := sha256.Sum256(content)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
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
