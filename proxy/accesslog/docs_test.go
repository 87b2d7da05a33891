package accesslog

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"sluice/test/verify"
)

func TestDocumentationListsTheKeys(t *testing.T) {
	full := typical()
	full.BytesIn, full.Connect, full.Reason = 1, 1, "reason"
	full.GRPCStatus, full.Route, full.Group, full.User, full.Proxy = "UNAVAILABLE", "all", "canary", "ann", "10.0.0.1"
	full.RequestID, full.TraceID, full.UpstreamStatus = []byte("1"), []byte("2"), 503
	full.TLSVersion, full.TLSCipher, full.TLSServerName, full.Tries = "3", "4", "5", twoTries
	var want []string
	for _, key := range regexp.MustCompile(`[{,]"(\w+)":`).FindAllStringSubmatch(lineJSON(full), -1) {
		want = append(want, key[1])
	}
	text := verify.Result(os.ReadFile("../../docs/access-log.md")).Must(t)
	var inText []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\| ").FindAllStringSubmatch(string(text), -1) {
		for _, key := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1) {
			inText = append(inText, key[1])
		}
	}
	// A template has the same names.
	templates := slices.Sorted(maps.Keys(byName))
	templates = slices.DeleteFunc(templates, func(name string) bool { return name == "time_combined" })
	inTries := []string{"outcome", "start_ms"}
	want = slices.DeleteFunc(want, func(key string) bool { return slices.Contains(inTries, key) })
	slices.Sort(inText)
	slices.Sort(want)
	want = slices.Compact(want)
	verify.That(t, slices.Equal(templates, want), "variables are %q\nkeys are      %q", templates, want)
	verify.That(t, slices.Equal(inText, want), "access-log.md lists %q\na line has           %q", inText, want)
}
