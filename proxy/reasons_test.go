package proxy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/proxy/refusal"
	"sluice/test/verify"
)

// docs/reasons.md has a heading for each reason of the code, and no other one. The overviews in
// docs/requests.md and docs/tcp.md name each reason.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		text := verify.Result(os.ReadFile("../docs/" + name)).Must(t)
		return string(text)
	}
	var inText []string
	for _, found := range regexp.MustCompile("(?m)^### `([a-z0-9_]+)`$").FindAllStringSubmatch(read("reasons.md"), -1) {
		inText = append(inText, found[1])
	}
	overview := read("requests.md") + read("tcp.md")
	inCode := reasonsOf(t, ".", "http1", "refusal")
	for _, reason := range inCode {
		verify.That(t, slices.Contains(inText, reason), "docs/reasons.md has no heading for %s", reason)
		verify.Contains(t, overview, "`"+reason+"`", "neither docs/requests.md nor docs/tcp.md names %s", reason)
	}
	for n, reason := range inText {
		verify.That(t, slices.Contains(inCode, reason), "docs/reasons.md has a heading for %s, which no code gives", reason)
		verify.That(t, !slices.Contains(inText[:n], reason), "docs/reasons.md has two headings for %s", reason)
	}
}

// reasonsOf returns the reasons in the source text of packages: those of refusals and of errors of
// package http1, of cut exchanges (the field interrupted), and what cutReason returns.
func reasonsOf(t *testing.T, dirs ...string) []string {
	var reasons []string
	add := func(e ast.Expr) {
		if e, ok := e.(*ast.SelectorExpr); ok && e.Sel.Name == "ChallengeReason" {
			reasons = append(reasons, refusal.ChallengeReason)
		}
		if e, ok := e.(*ast.BasicLit); ok && e.Kind == token.STRING {
			if reason, err := strconv.Unquote(e.Value); err == nil && reason != "" {
				reasons = append(reasons, reason)
			}
		}
	}
	for _, dir := range dirs {
		files := verify.Result(filepath.Glob(filepath.Join(dir, "*.go"))).Must(t)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			file := verify.Result(parser.ParseFile(token.NewFileSet(), name, nil, 0)).Must(t)
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					if name, ok := n.Type.(*ast.Ident); ok && name.Name == "Error" && len(n.Elts) == 3 {
						add(n.Elts[1])
					}
				case *ast.CallExpr: // of refusal.New
					name, ok := n.Fun.(*ast.Ident)
					if of, is := n.Fun.(*ast.SelectorExpr); is {
						from, known := of.X.(*ast.Ident)
						name, ok = of.Sel, known && from.Name == "refusal"
					}
					if ok && name.Name == "New" && len(n.Args) == 3 {
						add(n.Args[1])
					}
				case *ast.AssignStmt:
					for i, left := range n.Lhs {
						if field, ok := left.(*ast.SelectorExpr); ok && field.Sel.Name == "interrupted" && i < len(n.Rhs) {
							add(n.Rhs[i])
						}
					}
				case *ast.FuncDecl:
					if n.Name.Name == "cutReason" {
						ast.Inspect(n, func(n ast.Node) bool {
							if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 {
								add(r.Results[0])
							}
							return true
						})
					}
				}
				return true
			})
		}
	}
	slices.Sort(reasons)
	return slices.Compact(reasons)
}
