package traefik

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Limits of rules.
const (
	maxRule     = 4096 // bytes
	maxMatchers = 64
	maxTerms    = 64 // of the disjunctive normal form
)

// matcher is a condition of a rule, such as Host(`example.com`).
type matcher struct {
	name   string // as in the documentation: "PathPrefix"
	values []string
	not    bool
	column int // from 1
}

// term is a conjunction of matchers.
type term []matcher

type ruleError struct {
	column int // from 1; 0: unknown
	want   string
}

func (e *ruleError) Error() string { return e.want }

// matcherArguments is the number of arguments of a matcher. Of matchers with many, version 2 of
// Traefik takes several as alternatives, and so does sluice.
type matcherArguments struct {
	least, most int
	many        bool
}

// requestMatchers are the matchers of routers for HTTP.
var requestMatchers = map[string]matcherArguments{
	"ClientIP":     {1, 1, true},
	"Method":       {1, 1, true},
	"Host":         {1, 1, true},
	"HostRegexp":   {1, 1, false},
	"Path":         {1, 1, true},
	"PathRegexp":   {1, 1, false},
	"PathPrefix":   {1, 1, true},
	"Header":       {2, 2, false},
	"HeaderRegexp": {2, 2, false},
	"Query":        {1, 2, false},
	"QueryRegexp":  {1, 2, false},
}

// streamMatchers are the matchers of routers for TCP.
var streamMatchers = map[string]matcherArguments{
	"ALPN":          {1, 1, true},
	"ClientIP":      {1, 1, true},
	"HostSNI":       {1, 1, true},
	"HostSNIRegexp": {1, 1, false},
}

// spellings are the names of matchers in a rule: as documented, in lower case, in upper case,
// and with one upper-case letter.
var spellings = func() map[string]string {
	all := make(map[string]string)
	for _, matchers := range []map[string]matcherArguments{requestMatchers, streamMatchers} {
		for name := range matchers {
			lower := strings.ToLower(name)
			for _, spelling := range []string{name, lower, strings.ToUpper(name), strings.ToUpper(lower[:1]) + lower[1:]} {
				all[spelling] = name
			}
		}
	}
	return all
}()

// gone are matchers of version 2 with their names in version 3.
var gone = map[string]string{"Headers": "Header", "HeadersRegexp": "HeaderRegexp", "HostHeader": "Host"}

// parseRule returns a rule of Traefik 3 with the matchers in disjunctive normal form: one of the
// terms must hold. Its error is a *ruleError. The grammar is Go's for expressions.
func parseRule(rule string, matchers map[string]matcherArguments) ([]term, error) {
	if len(rule) > maxRule {
		return nil, &ruleError{maxRule + 1, fmt.Sprintf("the rule is too long: want at most %d bytes", maxRule)}
	}
	expression, err := parser.ParseExpr(rule)
	if err != nil {
		var list scanner.ErrorList
		if errors.As(err, &list) && len(list) > 0 {
			return nil, &ruleError{list[0].Pos.Column, "not a rule: " + list[0].Msg}
		}
		return nil, &ruleError{0, "not a rule: " + err.Error()}
	}
	w := &walker{known: matchers}
	return w.walk(expression, false)
}

// walker turns an expression into terms.
type walker struct {
	known    map[string]matcherArguments
	matchers int
}

// walk returns the terms of e, or of its negation.
func (w *walker) walk(e ast.Expr, not bool) ([]term, error) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return w.walk(e.X, not)
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			return w.walk(e.X, !not)
		}
	case *ast.BinaryExpr:
		if e.Op != token.LAND && e.Op != token.LOR {
			break
		}
		left, err := w.walk(e.X, not)
		if err != nil {
			return nil, err
		}
		right, err := w.walk(e.Y, not)
		if err != nil {
			return nil, err
		}
		// De Morgan: the negation of a conjunction is a disjunction.
		if (e.Op == token.LAND) != not {
			return both(left, right, e)
		}
		return either(left, right, e)
	case *ast.CallExpr:
		return w.matcher(e, not)
	}
	return nil, at(e, "want matchers such as Host(`example.com`), joined by &&, || and !")
}

// at returns an error at e. The positions of ParseExpr are columns.
func at(e ast.Node, want string) error { return &ruleError{int(e.Pos()), want} }

func either(left, right []term, e ast.Node) ([]term, error) {
	if len(left)+len(right) > maxTerms {
		return nil, at(e, fmt.Sprintf("the rule is too complex: want at most %d alternatives", maxTerms))
	}
	return append(left, right...), nil
}

func both(left, right []term, e ast.Node) ([]term, error) {
	if len(left)*len(right) > maxTerms {
		return nil, at(e, fmt.Sprintf("the rule is too complex: want at most %d alternatives", maxTerms))
	}
	terms := make([]term, 0, len(left)*len(right))
	for _, l := range left {
		for _, r := range right {
			terms = append(terms, append(append(make(term, 0, len(l)+len(r)), l...), r...))
		}
	}
	return terms, nil
}

// matcher returns the terms of a call: one, or one for each of several arguments.
func (w *walker) matcher(call *ast.CallExpr, not bool) ([]term, error) {
	if w.matchers++; w.matchers > maxMatchers {
		return nil, at(call, fmt.Sprintf("the rule is too complex: want at most %d matchers", maxMatchers))
	}
	function, ok := call.Fun.(*ast.Ident)
	if !ok {
		return nil, at(call, "want a matcher such as Host(`example.com`)")
	}
	name, ok := spellings[function.Name]
	if !ok {
		if successor, old := gone[function.Name]; old {
			return nil, at(call, function.Name+" is of version 2: want "+successor)
		}
		return nil, at(call, "unknown matcher "+function.Name)
	}
	want, ok := w.known[name]
	if !ok {
		return nil, at(call, name+" is not for this protocol: want "+strings.Join(slices.Sorted(maps.Keys(w.known)), ", "))
	}
	values := make([]string, len(call.Args))
	for i, argument := range call.Args {
		literal, ok := argument.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return nil, at(argument, "want a text in backticks or double quotes")
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			return nil, at(argument, "not a text: "+err.Error())
		}
		if value == "" {
			return nil, at(argument, "want a text that is not empty")
		}
		values[i] = value
	}
	m := matcher{name: name, values: values, not: not, column: int(call.Pos())}
	switch {
	case call.Ellipsis != token.NoPos || len(values) < want.least || len(values) > want.most && !want.many:
		return nil, at(call, fmt.Sprintf("%s has %d arguments: want %s", name, len(values), count(want.least, want.most)))
	case len(values) <= want.most:
		if err := m.check(); err != nil {
			return nil, err
		}
		return []term{{m}}, nil
	}
	// Several arguments, as in version 2: one of them, or with ! none of them.
	if !not && len(values) > maxTerms {
		return nil, at(call, fmt.Sprintf("the rule is too complex: want at most %d alternatives", maxTerms))
	}
	var terms []term
	var all term
	for _, value := range values {
		one := m
		one.values = []string{value}
		if err := one.check(); err != nil {
			return nil, err
		}
		terms, all = append(terms, term{one}), append(all, one)
	}
	if not {
		return []term{all}, nil
	}
	return terms, nil
}

func count(least, most int) string {
	if least == most {
		return strconv.Itoa(least)
	}
	return fmt.Sprintf("%d or %d", least, most)
}
