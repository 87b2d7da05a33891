package route

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"sluice/route/template"
)

// A Template is a text with variables, such as "https://$host$path". The zero value is
// empty.
type Template struct {
	parts []templatePart
}

// templatePart is a literal text, and then a variable.
type templatePart struct {
	text     string
	variable Variable
	group    int // with variableGroup
}

// Variable is a part of a request that a Template can contain.
type Variable uint8

const (
	variableNone Variable = iota
	variableGroup
	// VariableAuthority is the host with its port, as sent.
	VariableAuthority
	// VariableClientAddress is the client's IP address; behind trusted proxies, the one
	// that they forward.
	VariableClientAddress
	// VariableHost is the host without its port.
	VariableHost
	// VariableMethod is the method.
	VariableMethod
	// VariablePath is the path, after the edits of the route.
	VariablePath
	// VariableQuery is the query without its question mark.
	VariableQuery
	// VariableRequestID is the id of the request, or empty.
	VariableRequestID
	// VariableScheme is http or https.
	VariableScheme
	// VariableUser is the name by which the client was authenticated, or empty.
	VariableUser
	// VariableTarget is the path with the query, as sent. Templates have no name for it.
	VariableTarget
)

var variableNames = map[string]Variable{
	"authority":      VariableAuthority,
	"client_address": VariableClientAddress,
	"host":           VariableHost,
	"method":         VariableMethod,
	"path":           VariablePath,
	"query":          VariableQuery,
	"request_id":     VariableRequestID,
	"scheme":         VariableScheme,
	"user":           VariableUser,
}

// IsVariable reports whether a Template can contain the variable name.
func IsVariable(name string) bool { return variableNames[name] != variableNone }

var variablesWanted = "$" + strings.Join(slices.Sorted(maps.Keys(variableNames)), ", $")

// Values are the values of variables for one request.
type Values interface {
	// Variable returns the value of v. It is valid until the next call.
	Variable(v Variable) []byte
}

// NoGroups is the number of groups without a regular expression.
const NoGroups = -1

// ParseTemplate parses a text, as [template.Parse] does. "$1" and "${1}" are the groups of a
// regular expression, of which there are as many as groups says, and "$0" is all that it
// matches.
func ParseTemplate(s string, groups int) (t Template, err error) {
	parts, rest, err := template.Parse(s, func(name string) (p templatePart, err error) {
		p.variable, p.group, err = lookUpVariable(name, groups)
		return p, err
	})
	if err != nil {
		return t, err
	}
	for _, p := range parts {
		p.Variable.text = p.Text
		t.parts = append(t.parts, p.Variable)
	}
	if rest != "" {
		t.parts = append(t.parts, templatePart{text: rest})
	}
	return t, nil
}

func lookUpVariable(name string, groups int) (v Variable, group int, err error) {
	if v, ok := variableNames[name]; ok {
		return v, 0, nil
	}
	if name != "" && strings.Trim(name, "0123456789") == "" {
		if group, err := strconv.Atoi(name); err == nil && len(name) <= 2 && group <= groups {
			return variableGroup, group, nil
		}
		return 0, 0, fmt.Errorf("$%s: there is no such group in the regular expression", name)
	}
	return 0, 0, fmt.Errorf("$%s is not a variable: want one of %s, or $$ for a dollar sign", name, variablesWanted)
}

// maxExpansion is the length after which an expansion ends. It is more than any head may
// have: a variable may be as long as a head, and a template may have many.
const maxExpansion = 64 << 10

// Append appends the text with its variables replaced. It ends after the part with which the
// text is longer than 64 KiB: no head may have that.
func (t *Template) Append(out []byte, values Values) []byte {
	return t.appendGroups(out, values, nil, nil)
}

// appendGroups is Append for a template with groups, whose positions in text are
// as in [regexp.Regexp.FindSubmatchIndex].
func (t *Template) appendGroups(out []byte, values Values, text []byte, groups []int) []byte {
	start := len(out)
	for i := range t.parts {
		if len(out)-start > maxExpansion {
			return out
		}
		p := &t.parts[i]
		out = append(out, p.text...)
		switch p.variable {
		case variableNone:
		case variableGroup:
			if start := groups[2*p.group]; start >= 0 {
				out = append(out, text[start:groups[2*p.group+1]]...)
			}
		default:
			out = append(out, values.Variable(p.variable)...)
		}
	}
	return out
}
