package reference

import (
	"slices"
	"strings"
	"testing"

	"sluice/docs"
	"sluice/test/verify"
)

func TestBelow(t *testing.T) {
	rows := Rows(docs.Configuration)
	verify.That(t, len(rows) > 300, "the page has %d rows", len(rows))
	for key, want := range map[string]string{
		"log":                          "log.level log.format",
		"log.level":                    "log.level",
		"services.star.retry.attempts": "services.NAME.retry.attempts",
		"services.NAME.retry.attempts": "services.NAME.retry.attempts",
		"routes[3].split.fallback":     "routes[].split.NAME",
		"routes.split.fallback":        "routes[].split.NAME",
		"health.active.jitter":         "services.NAME.health.active.jitter",
		"retry.attempts":               "services.NAME.retry.attempts routes[].retry.attempts",
		"attempts":                     "services.NAME.retry.attempts routes[].retry.attempts",
		"services.star.retri":          "",
		"":                             "",
	} {
		var keys []string
		for _, r := range Below(rows, key) {
			keys = append(keys, r.Key)
		}
		verify.Equal(t, strings.Join(keys, " "), want, "%s", key)
	}
	for _, r := range Below(rows, "services.star.retry.attempts") {
		verify.That(t, r.Default == "`3`" && r.SetBy != "" && r.Meaning != "", "%+v", r)
	}
}

// A key has the meaning of its row, with names and indexes too.
func TestMeanings(t *testing.T) {
	rows := Rows(docs.Configuration)
	meaningOf := Meanings(rows)
	for key, row := range map[string]string{
		"log.level":                         "log.level",
		"listeners[2].address":              "listeners[].address",
		"services.star.retry.attempts":      "services.NAME.retry.attempts",
		"services.NAME.retry.attempts":      "services.NAME.retry.attempts",
		"defaults.service.retry.attempts":   "services.NAME.retry.attempts",
		"actions.office.compress.encodings": "routes[].compress.encodings",
		"services.star.retry":               "",
		"no.such":                           "",
	} {
		want := ""
		if at := slices.IndexFunc(rows, func(r Row) bool { return r.Key == row }); at >= 0 {
			want = rows[at].Meaning
		}
		verify.That(t, meaningOf(key) == want && (want != "" || row == ""), "%s: got %q, want %q", key, meaningOf(key), want)
	}
}

func TestSuggest(t *testing.T) {
	rows := Rows(docs.Configuration)
	for key, want := range map[string]string{
		"services.star.retri":          "services.star.retry",
		"services.star.retry.atempts":  "services.star.retry.attempts",
		"service.star.retry":           "services",
		"routes[0].redirekt":           "routes.redirect",
		"something.else.that.is.not.t": "",
	} {
		verify.Equal(t, Suggest(rows, key), want, "%s", key)
	}
}
