package structure

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Packages on the path of a request: they take locks in their own way (proxy/panicked.go).
var locksOfRequests = []string{"proxy", "balancer", "route", "observe/metrics"}

// harmless are functions of the standard library that a section without a deferred Unlock may call:
// none of them calls others or panics.
var harmless = map[string]bool{
	"time.Now": true, "errors.Join": true, "maps.Clone": true, "maps.Keys": true, "maps.Values": true,
	"slices.Clone": true, "slices.Collect": true,
}

// Outside of the path of a request, a panic under a mutex is contained like every other one
// (package panics), and the mutex must not stay locked then. So a deferred Unlock follows each
// Lock, or nothing between the two calls a function that may panic.
func TestLocksOutliveNoPanic(t *testing.T) {
	files := token.NewFileSet()
	for name := range importsOfProgram(t) {
		if slices.ContainsFunc(locksOfRequests, func(of string) bool { return name == of || strings.HasPrefix(name, of+"/") }) {
			continue
		}
		for _, file := range filesOf(t, files, name) {
			ast.Inspect(file, func(n ast.Node) bool {
				for i, statement := range statementsOf(n) {
					if isCall(statement, "Lock", "RLock") && !released(statementsOf(n)[i+1:]) {
						t.Errorf("%s: a panic may leave this mutex locked: want a deferred Unlock after it, or a section that calls nothing", files.Position(statement.Pos()))
					}
				}
				return true
			})
		}
	}
}

// statementsOf returns the statements of a block; nil: n is none.
func statementsOf(n ast.Node) []ast.Stmt {
	switch n := n.(type) {
	case *ast.BlockStmt:
		return n.List
	case *ast.CaseClause:
		return n.Body
	case *ast.CommClause:
		return n.Body
	}
	return nil
}

// isCall reports whether a statement is the call of a method with one of these names.
func isCall(statement ast.Stmt, names ...string) bool {
	var call ast.Expr
	switch s := statement.(type) {
	case *ast.ExprStmt:
		call = s.X
	case *ast.DeferStmt:
		call = s.Call
	}
	c, ok := call.(*ast.CallExpr)
	if !ok {
		return false
	}
	method, ok := c.Fun.(*ast.SelectorExpr)
	return ok && len(c.Args) == 0 && slices.Contains(names, method.Sel.Name)
}

// released reports whether a mutex that is locked before these statements is unlocked after a panic
// in them.
func released(statements []ast.Stmt) bool {
	for _, statement := range statements {
		if isCall(statement, "Unlock", "RUnlock") {
			return true
		}
		if !calm(statement) {
			return false
		}
	}
	return true
}

// calm reports whether a statement calls nothing that may panic.
func calm(statement ast.Stmt) bool {
	quiet := true
	ast.Inspect(statement, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		switch f := call.Fun.(type) {
		case *ast.Ident:
			switch f.Name {
			case "len", "cap", "append", "delete", "clear", "min", "max", "make", "new", "copy", "close":
				return true
			}
		case *ast.SelectorExpr:
			if x, ok := f.X.(*ast.Ident); ok && harmless[x.Name+"."+f.Sel.Name] {
				return true
			}
			switch f.Sel.Name {
			case "Unlock", "RUnlock", "Before", "IsZero": // the latter two of a time
				return true
			}
		}
		quiet = false
		return false
	})
	return quiet
}
