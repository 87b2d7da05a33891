package accesslog

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Both the package's comment and the users' document list the keys of a line.
func TestDocumentationListsTheKeysInOrder(t *testing.T) {
	full := typical()
	full.BytesIn, full.Connect, full.Reason = 1, 1, "reason"
	var want []string
	for _, key := range regexp.MustCompile(`[{,]"(\w+)":`).FindAllStringSubmatch(lineJSON(full), -1) {
		want = append(want, key[1])
	}

	comment, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(comment), "# JSON")
	list, _, _ = strings.Cut(list, "# Combined")
	var inComment []string
	for _, key := range regexp.MustCompile(`(?m)^//\t(\w+)  `).FindAllStringSubmatch(list, -1) {
		inComment = append(inComment, key[1])
	}
	if !slices.Equal(inComment, want) {
		t.Errorf("doc.go lists %q\na line has     %q", inComment, want)
	}

	text, err := os.ReadFile("../docs/access-log.md")
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
