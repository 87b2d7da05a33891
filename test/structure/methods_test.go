package structure

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/test/verify"
)

// maxMethods is the most methods that a type of the program may have, with those that it is
// promoted by what it embeds: who reads a call has to find its method among them.
const maxMethods = 40

// A ladder of types that embed each other does not pass: its methods are those of one type.
func TestTypesHaveFewMethods(t *testing.T) {
	for name, n := range methodsOfProgram(t) {
		verify.That(t, n <= maxMethods, "%s has %d methods, promoted ones included, want at most %d", name, n, maxMethods)
	}
}

// methodsOfProgram returns how many methods of this module the types of the program have: those of
// the method set of a pointer to each.
func methodsOfProgram(t *testing.T) map[string]int {
	listing := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles", ".")
	listing.Stderr = os.Stderr
	text := verify.Result(listing.Output()).Must(t)
	type listed struct {
		ImportPath, Export, Dir string
		GoFiles                 []string
	}
	program := importsOfProgram(t)
	export, own := make(map[string]string), make(map[string]listed)
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var p listed
		verify.Succeeds(t, d.Decode(&p))
		export[p.ImportPath] = p.Export
		if name, of := strings.CutPrefix(p.ImportPath, "sluice/"); of && program[name] != nil {
			own[name] = p
		}
	}
	verify.Equal(t, len(own), len(program), "packages of the program that are listed")
	files := token.NewFileSet()
	config := types.Config{IgnoreFuncBodies: true, Importer: importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(export[path])
	})}
	methods := make(map[string]int)
	for name, p := range own {
		var parsed []*ast.File
		for _, file := range p.GoFiles {
			parsed = append(parsed, verify.Result(parser.ParseFile(files, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)).Must(t))
		}
		checked := verify.Result(config.Check(p.ImportPath, files, parsed, nil)).Must(t)
		for _, of := range checked.Scope().Names() {
			named, is := checked.Scope().Lookup(of).(*types.TypeName)
			if !is || named.IsAlias() || types.IsInterface(named.Type()) {
				continue
			}
			set, n := types.NewMethodSet(types.NewPointer(named.Type())), 0
			for i := range set.Len() {
				if by := set.At(i).Obj().Pkg(); by != nil && strings.HasPrefix(by.Path(), "sluice/") {
					n++
				}
			}
			methods[name+"."+of] = n
		}
	}
	return methods
}
