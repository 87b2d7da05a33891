//go:build unix

package docs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

// What the pages link to within the repository is there, and so is the heading that a link names.
func TestLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^):]+)\)`)
	for _, name := range append(pages(t), "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		for n, line := range strings.Split(textOf(t, name), "\n") {
			for _, found := range link.FindAllStringSubmatch(line, -1) {
				target, anchor, _ := strings.Cut(found[1], "#")
				if target = path.Join(path.Dir(name), target); strings.HasPrefix(found[1], "#") {
					target = name
				}
				_, err := os.Stat(filepath.Join(repository, target))
				verify.That(t, err == nil, "%s:%d: %s is not there", name, n+1, target)
				verify.That(t, err != nil || anchor == "" || slices.Contains(anchors(textOf(t, target)), anchor),
					"%s:%d: %s has no heading %s", name, n+1, target, anchor)
			}
		}
	}
}

var (
	heading     = regexp.MustCompile("(?m)^#+ +(.*)$")
	codeBlock   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	linked      = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	noneOfLinks = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns what GitHub lets links to the headings of a page end with. The second and later
// ones of the same name get a number.
func anchors(text string) []string {
	var all []string
	times := make(map[string]int)
	for _, found := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		title := noneOfLinks.ReplaceAllString(linked.ReplaceAllString(found[1], "$1"), "")
		anchor := strings.ToLower(strings.ReplaceAll(title, " ", "-"))
		if times[anchor]++; times[anchor] > 1 {
			anchor = fmt.Sprintf("%s-%d", anchor, times[anchor]-1)
		}
		all = append(all, anchor)
	}
	return all
}
