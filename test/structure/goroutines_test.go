package structure

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"testing"

	"sluice/test/verify"
)

// uncontained are the goroutines that do not begin with panics.Contain, and why.
var uncontained = map[string]string{
	"AfterFunc(cancel)":   "it ends a context only",
	"AfterFunc(end)":      "it ends a context only",
	"AfterFunc(t.cancel)": "it ends a context only",
	"consul AfterFunc(func() { cancel(errModeChanged) })":                                     "it ends a context only",
	"consul AfterFunc(func() { cancel(context.Cause(life)) })":                                "it ends a context only",
	"consul AfterFunc(func() { end(context.Cause(ctx)) })":                                    "it ends a context only",
	"discovery/dns AfterFunc(func() { _ = conn.SetDeadline(time.Unix(1, 0)) })":               "it sets a deadline only",
	"healthcheck AfterFunc(func() { connection.SetDeadline(longAgo) })":                       "it sets a deadline only",
	"observe/panics Go(func() { Repeat(ctx.Done(), at, time.Second, func() { task(ctx) }) })": "it is a panics.Repeat",
	"proxy/upstream AfterFunc(func() { conn.SetDeadline(socket.ALongTimeAgo) })":              "it sets a deadline only",
	"proxy/socket go c.Resume()":                                                              "of IdleConn, which contains",
	"proxy/upstream AfterFunc(look)":                                                          "a value of a function that contains",
	"proxy/http2 go c.onFlush()":                                                              "a value of flush, which contains",
	"proxy go s.onServe()":                                                                    "a value of serve, which contains",
}

// Every goroutine of the program, also a timer's, begins with a deferred panics.Contain, or is a
// panics.Repeat: so no panic in it ends the process.
func TestEveryGoroutineContainsItsPanics(t *testing.T) {
	used := make(map[string]bool)
	for name := range importsOfProgram(t) {
		fset := token.NewFileSet()
		files := filesOf(t, fset, name)
		g := goroutines{t: t, fset: fset, name: name, used: used, bodies: make(map[types.Object]*ast.BlockStmt)}
		g.info = &types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object), Selections: make(map[*ast.SelectorExpr]*types.Selection)}
		// What is of other packages is unknown here, and so are they: only their names count.
		check := types.Config{Error: func(error) {}, Importer: noImporter{}}
		_, _ = check.Check(name, fset, files, g.info)
		for _, file := range files {
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && g.info.Defs[f.Name] != nil {
					g.bodies[g.info.Defs[f.Name]] = f.Body
				}
			}
		}
		for _, file := range files {
			ast.Inspect(file, g.inspect)
		}
	}
	for key := range uncontained {
		verify.That(t, used[key], "uncontained has %q, which does not exist", key)
	}
}

type noImporter struct{}

func (noImporter) Import(string) (*types.Package, error) { return nil, errors.New("not needed") }

// goroutines are a package's.
type goroutines struct {
	t      *testing.T
	fset   *token.FileSet
	name   string
	info   *types.Info
	bodies map[types.Object]*ast.BlockStmt
	used   map[string]bool
}

func (g *goroutines) inspect(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		g.check("go ", n.Call.Fun, n.Pos(), "()")
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		switch {
		case !ok:
		case f.Sel.Name == "Go" && len(n.Args) == 1:
			g.check("Go(", n.Args[0], n.Pos(), ")")
		case f.Sel.Name == "AfterFunc" && len(n.Args) == 2:
			g.check("AfterFunc(", n.Args[1], n.Pos(), ")")
		}
	}
	return true
}

// check checks a goroutine that runs f.
func (g *goroutines) check(before string, f ast.Expr, at token.Pos, after string) {
	var body *ast.BlockStmt
	switch f := f.(type) {
	case *ast.FuncLit:
		body = f.Body
	case *ast.Ident:
		body = g.bodies[g.info.Uses[f]]
	case *ast.SelectorExpr:
		body = g.bodies[g.info.Uses[f.Sel]]
	}
	if body != nil && containsPanics(body) {
		return
	}
	text := before + g.text(f) + after
	for _, key := range []string{text, g.name + " " + text} {
		if uncontained[key] != "" {
			g.used[key] = true
			return
		}
	}
	g.t.Errorf("%s: %s: a goroutine must begin with defer panics.Contain(…), or be panics.Repeat(…)", g.fset.Position(at), text)
}

// text returns the source of f.
func (g *goroutines) text(f ast.Expr) string {
	file := verify.Result(os.ReadFile(g.fset.Position(f.Pos()).Filename)).Must(g.t)
	return string(file[g.fset.Position(f.Pos()).Offset:g.fset.Position(f.End()).Offset])
}

// containsPanics reports whether a function defers panics.Contain before it calls anything else
// than by defer, or only repeats.
func containsPanics(body *ast.BlockStmt) bool {
	for _, statement := range body.List {
		switch s := statement.(type) {
		case *ast.DeferStmt:
			if isOfPanics(s.Call, "Contain") {
				return true
			}
		case *ast.AssignStmt, *ast.DeclStmt: // what a defer needs
		case *ast.ExprStmt:
			call, ok := s.X.(*ast.CallExpr)
			return ok && isOfPanics(call, "Repeat")
		default:
			return false
		}
	}
	return false
}

func isOfPanics(call *ast.CallExpr, name string) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || f.Sel.Name != name {
		return false
	}
	of, ok := f.X.(*ast.Ident)
	return ok && of.Name == "panics"
}
