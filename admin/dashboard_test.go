package admin

import (
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"sluice/test/verify"
)

// The page contains all its resources, and its policy allows only these. Package browser tests it
// in a browser.
func TestDashboardIsSelfContained(t *testing.T) {
	w := httptest.NewRecorder()
	handlerOf(Options{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	for _, element := range []string{"style", "script"} {
		texts := regexp.MustCompile(`(?s)<`+element+`>(.*?)</`+element+`>`).FindAllStringSubmatch(page, -1)
		verify.Require(t, len(texts) == 1 && len(texts[0][1]) >= 1000, "the page has %d times the element %s, or nothing in it", len(texts), element)
		want := element + "-src " + hashOf(texts[0][1])
		verify.That(t, strings.Contains(policy, want), "the policy %q lacks %q", policy, want)
	}
	verify.Equal(t, regexp.MustCompile(`(?:src|href)="(?:https?:)?//[^"]*"|@import|url\(`).FindString(page), "", "the page needs")
}
