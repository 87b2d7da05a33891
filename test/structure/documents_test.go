package structure

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/test/verify"
)

// maxDocuments is how much a developer has to read, in bytes of docs/dev.
const maxDocuments = 80_000

// The pages for developers name tests and files that exist: so a row about what is shared, or about
// a kind of fault, cannot outlive its test.
func TestTheTestsOfTheDesignExist(t *testing.T) {
	tests := namesOfTests(t)
	var size int
	for _, page := range verify.Result(filepath.Glob("docs/dev/*.md")).Must(t) {
		text := verify.Result(os.ReadFile(page)).Must(t)
		size += len(text)
		for _, found := range regexp.MustCompile("`(Test[A-Z]\\w*|Fuzz[A-Z]\\w*)`").FindAllSubmatch(text, -1) {
			verify.That(t, tests[string(found[1])], "%s names the test %s, which does not exist", page, found[1])
		}
		for _, found := range regexp.MustCompile("`([a-z0-9_]+/[a-z0-9_/]+\\.go)`").FindAllSubmatch(text, -1) {
			_, err := os.Stat(string(found[1]))
			verify.That(t, err == nil, "%s names the file %s, which does not exist", page, found[1])
		}
	}
	verify.That(t, size <= maxDocuments, "docs/dev has %d bytes, want at most %d", size, maxDocuments)
}

// namesOfTests returns the names of all tests and fuzz targets of the repository.
func namesOfTests(t *testing.T) map[string]bool {
	names := make(map[string]bool)
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, found := range declaration.FindAllSubmatch(text, -1) {
			names[string(found[1])] = true
		}
		return nil
	})
	verify.NoError(t, err)
	return names
}
