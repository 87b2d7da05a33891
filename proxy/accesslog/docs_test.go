package accesslog

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

func TestDocumentationListsTheKeys(t *testing.T) {
	full := typical()
	full.BytesIn, full.Connect, full.Reason = 1, 1, "reason"
	full.GRPCStatus, full.Group = "UNAVAILABLE", "canary"
	var want []string
	for _, key := range regexp.MustCompile(`[{,]"(\w+)":`).FindAllStringSubmatch(lineJSON(full), -1) {
		want = append(want, key[1])
	}
	text, err := os.ReadFile("../../docs/access-log.md")
	if err != nil {
		t.Fatal(err)
	}
	var inText []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\| ").FindAllStringSubmatch(string(text), -1) {
		for _, key := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1) {
			inText = append(inText, key[1])
		}
	}
	slices.Sort(inText)
	slices.Sort(want)
	if !slices.Equal(inText, want) {
		t.Errorf("access-log.md lists %q\na line has           %q", inText, want)
	}
}
