package structure

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/test/verify"
)

func TestMain(m *testing.M) {
	if err := os.Chdir("../.."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The table of packages in docs/dev/design.md has every package of the program, and each
// package imports only those below it in the table, and those that it is below in the
// tree of directories.
func TestImportsFollowTheDesign(t *testing.T) {
	table := packagesOfDesign(t)
	imports := importsOfProgram(t)
	for name := range imports {
		verify.That(t, slices.Contains(table, name), "docs/dev/design.md lacks the package %s", name)
	}
	for row, name := range table {
		verify.That(t, imports[name] != nil, "docs/dev/design.md has the package %s, which does not exist", name)
		for _, imported := range imports[name] {
			verify.That(t, slices.Contains(table[row+1:], imported) || strings.HasPrefix(name, imported+"/"), "%s imports %s, which is not below it in the table of docs/dev/design.md", name, imported)
		}
	}
}

// packagesOfDesign returns the packages of the table, in its order.
func packagesOfDesign(t *testing.T) (names []string) {
	table := tableOfDesign(t, "| package | what it is |")
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		names = append(names, row[1])
	}
	return names
}

// tableOfDesign returns the rows of the table with that header in docs/dev/design.md.
func tableOfDesign(t *testing.T, header string) string {
	text := verify.Result(os.ReadFile("docs/dev/design.md")).Must(t)
	_, table, found := strings.Cut(string(text), header+"\n|---|---|\n")
	verify.Require(t, found, "docs/dev/design.md has no table %s", header)
	table, _, _ = strings.Cut(table, "\n\n")
	return table
}

// importsOfProgram returns what each package imports of this module, without the packages
// for tests, measurements and examples.
func importsOfProgram(t *testing.T) map[string][]string {
	imports := make(map[string][]string)
	for name, all := range allImports(t) {
		imports[name] = []string{}
		for _, path := range all {
			if imported, ok := strings.CutPrefix(path, "sluice/"); ok {
				imports[name] = append(imports[name], imported)
			}
		}
	}
	return imports
}

// quic-go changes often: one package knows it.
func TestOnePackageImportsQUIC(t *testing.T) {
	for name, all := range allImports(t) {
		for _, path := range all {
			verify.That(t, name == "proxy/http3" || !strings.HasPrefix(path, "github.com/quic-go/"), "%s imports %s: only proxy/http3 may", name, path)
		}
	}
}

// allImports returns what the packages of the program import.
func allImports(t *testing.T) map[string][]string {
	imports := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != "." && err == nil || // another module
				path != "." && strings.HasPrefix(path, ".") || slices.Contains([]string{"test", "bench", "examples", "packaging"}, path) {
				return fs.SkipDir
			}
			return nil
		case filepath.Dir(path) == "." || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Dir(path))
		for _, i := range file.Imports {
			imports[name] = append(imports[name], strings.Trim(i.Path.Value, `"`))
		}
		return nil
	})
	verify.NoError(t, err)
	return imports
}

// pathsOf returns the files of a package of the program, without tests.
func pathsOf(t *testing.T, name string) []string {
	paths := verify.Result(filepath.Glob(filepath.Join(filepath.FromSlash(name), "*.go"))).Must(t)
	return slices.DeleteFunc(paths, func(path string) bool { return strings.HasSuffix(path, "_test.go") })
}

// filesOf parses them.
func filesOf(t *testing.T, files *token.FileSet, name string) (parsed []*ast.File) {
	for _, path := range pathsOf(t, name) {
		parsed = append(parsed, verify.Result(parser.ParseFile(files, path, nil, parser.SkipObjectResolution)).Must(t))
	}
	return parsed
}

// The limits of the house: who looks for a line finds its folder. See methods_test.go for those of
// a type.
const (
	maxFolders = 21 // at the top
	maxFiles   = 45 // in a folder, without tests
)

func TestRoomsAreSmall(t *testing.T) {
	entries := verify.Result(os.ReadDir(".")).Must(t)
	folders := slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return !e.IsDir() || strings.HasPrefix(e.Name(), ".") })
	verify.That(t, len(folders) <= maxFolders, "%d folders at the top, want at most %d", len(folders), maxFolders)
	for folder := range importsOfProgram(t) {
		n := len(pathsOf(t, folder))
		verify.That(t, n <= maxFiles, "%s has %d files, want at most %d", folder, n, maxFiles)
	}
}
