package admin

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"strings"
)

var (
	//go:embed dashboard
	dashboardFiles embed.FS

	dashboardStyle  = dashboardText("style.css")
	dashboardScript = dashboardText("elements.js", "address.js", "peers.js", "series.js", "charts.js", "consul.js", "services.js", "list.js",
		"routes.js", "revisions.js", "rounds.js", "replicas.js", "orders.js", "happened.js", "start.js")

	// dashboardPage contains styles and scripts, so that a browser never combines
	// two versions.
	dashboardPage = []byte(strings.NewReplacer(
		"<style></style>", "<style>"+dashboardStyle+"</style>",
		"<script></script>", "<script>"+dashboardScript+"</script>",
	).Replace(dashboardText("page.html")))

	// dashboardPolicy allows the page's own parts and the admin API.
	dashboardPolicy = "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"script-src " + hashOf(dashboardScript) + "; style-src " + hashOf(dashboardStyle)
)

// dashboardText concatenates files of the page.
func dashboardText(names ...string) string {
	var text strings.Builder
	for _, name := range names {
		file, err := dashboardFiles.ReadFile("dashboard/" + name)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		text.Write(file)
	}
	return text.String()
}

// hashOf returns the hash of an element's text as a source of a
// Content-Security-Policy.
func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// dashboard answers /. The page holds no data: it reads the API.
func dashboard(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-cache")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", dashboardPolicy)
	w.Write(dashboardPage)
}
