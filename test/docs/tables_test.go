//go:build unix

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/test/verify"
)

// maxCell is how many characters of a cell a reader takes in at a glance.
const maxCell = 200

// maxText is how much there is to read, in bytes of all pages together.
var maxText = []struct {
	pages string
	bytes int
}{
	{"docs/*.md", 384_000},
	// What an operator reads who has not seen sluice before.
	{"README.md docs/words.md docs/recipes.md docs/operations.md docs/troubleshooting.md docs/migration.md", 120_000},
	{"docs/performance.md", 12_000},
}

// A cell of a table has at most maxCell characters: what needs more is text beside the table.
func TestCellsAreShort(t *testing.T) {
	t.Parallel()
	for _, name := range append(pages(t), "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md") {
		code := false
		for n, line := range strings.Split(textOf(t, name), "\n") {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "```") {
				code = !code
			}
			if code || !strings.HasPrefix(line, "|") {
				continue
			}
			for _, cell := range cells(line) {
				verify.That(t, utf8.RuneCountInString(cell) <= maxCell, "%s:%d: a cell has %d characters, want at most %d: %s",
					name, n+1, utf8.RuneCountInString(cell), maxCell, cell)
			}
		}
	}
}

var bar = regexp.MustCompile(`(^|[^\\])\|`)

// cells returns the texts between the bars of a row.
func cells(row string) []string {
	var all []string
	for _, cell := range strings.Split(bar.ReplaceAllString(row, "$1\n"), "\n") {
		all = append(all, strings.TrimSpace(cell))
	}
	return all
}

// The pages stay short enough to find something in them.
func TestDocumentsAreShort(t *testing.T) {
	t.Parallel()
	for _, limit := range maxText {
		size := 0
		for _, pattern := range strings.Fields(limit.pages) {
			for _, name := range verify.Result(filepath.Glob(filepath.Join(repository, pattern))).Must(t) {
				size += len(verify.Result(os.ReadFile(name)).Must(t))
			}
		}
		verify.That(t, 0 < size && size <= limit.bytes, "%s: %d bytes, want at most %d", limit.pages, size, limit.bytes)
	}
}

// README.md leads to every page.
func TestIndexHasEveryPage(t *testing.T) {
	t.Parallel()
	index := textOf(t, "README.md")
	for _, name := range verify.Result(filepath.Glob(filepath.Join(repository, "docs", "*.md"))).Must(t) {
		verify.That(t, strings.Contains(index, "](docs/"+filepath.Base(name)+")"), "README.md does not link to docs/%s", filepath.Base(name))
	}
}

var purpose = regexp.MustCompile(`^# .*\n\n(How|What|Which|Who|Why|Every|To) `)

// A page says first what it is for.
func TestPagesBeginWithTheirPurpose(t *testing.T) {
	t.Parallel()
	for _, name := range verify.Result(filepath.Glob(filepath.Join(repository, "docs", "*.md"))).Must(t) {
		text := textOf(t, "docs/"+filepath.Base(name))
		verify.That(t, purpose.MatchString(text), "docs/%s does not begin with a sentence about its purpose: How …, What …, Which …", filepath.Base(name))
	}
}
