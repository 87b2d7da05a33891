package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The table of packages in docs/design.md has every package of the program, and each
// package imports only those below it in the table, and those that it is below in the
// tree of directories.
func TestImportsFollowTheDesign(t *testing.T) {
	table := packagesOfDesign(t)
	imports := importsOfProgram(t)
	for name := range imports {
		if !slices.Contains(table, name) {
			t.Errorf("docs/design.md lacks the package %s", name)
		}
	}
	for row, name := range table {
		if imports[name] == nil {
			t.Errorf("docs/design.md has the package %s, which does not exist", name)
		}
		for _, imported := range imports[name] {
			if !slices.Contains(table[row+1:], imported) && !strings.HasPrefix(name, imported+"/") {
				t.Errorf("%s imports %s, which is not below it in the table of docs/design.md", name, imported)
			}
		}
	}
}

// packagesOfDesign returns the packages of the table, in its order.
func packagesOfDesign(t *testing.T) (names []string) {
	text, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| package | what it is |")
	if !found {
		t.Fatal("docs/design.md has no table of packages")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		names = append(names, row[1])
	}
	return names
}

// importsOfProgram returns what each package imports of this module, without the packages
// for tests, measurements and examples.
func importsOfProgram(t *testing.T) map[string][]string {
	imports := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != "." && err == nil || // another module
				path != "." && strings.HasPrefix(path, ".") || slices.Contains([]string{"test", "bench", "examples"}, path) {
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
		if imports[name] == nil {
			imports[name] = []string{}
		}
		for _, i := range file.Imports {
			if imported, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), "sluice/"); ok {
				imports[name] = append(imports[name], imported)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return imports
}
