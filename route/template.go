package route

import (
	"fmt"
	"strings"
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

const variablesWanted = "$authority, $client_address, $host, $method, $path, $query, $request_id, $scheme, $user"

// Values are the values of variables for one request.
type Values interface {
	// Variable returns the value of v. It is valid until the next call.
	Variable(v Variable) []byte
}

// NoGroups is the number of groups without a regular expression.
const NoGroups = -1

// ParseTemplate parses a text. "$name" and "${name}" are variables, "$1" and "${1}" the
// groups of a regular expression, of which there are as many as groups says, "$0" is all
// that it matches, and "$$" is a dollar sign. A text with a control character is an error.
func ParseTemplate(s string, groups int) (Template, error) {
	var t Template
	for i, c := range []byte(s) {
		if c < ' ' || c == 0x7f {
			return t, fmt.Errorf("contains %q, character %d", c, i+1)
		}
	}
	text := ""
	for {
		before, after, found := strings.Cut(s, "$")
		text += before
		if !found {
			break
		}
		if strings.HasPrefix(after, "$") {
			text, s = text+"$", after[1:]
			continue
		}
		name, rest, err := variableName(after)
		if err != nil {
			return Template{}, err
		}
		part := templatePart{text: text}
		if part.variable, part.group, err = lookUpVariable(name, groups); err != nil {
			return Template{}, err
		}
		t.parts = append(t.parts, part)
		text, s = "", rest
	}
	if text != "" {
		t.parts = append(t.parts, templatePart{text: text})
	}
	return t, nil
}

// variableName cuts the name of a variable off the text after a dollar sign.
func variableName(s string) (name, rest string, err error) {
	if inner, ok := strings.CutPrefix(s, "{"); ok {
		if name, rest, ok = strings.Cut(inner, "}"); !ok {
			return "", "", fmt.Errorf(`"$%s" has no "}"`, s)
		}
		return name, rest, nil
	}
	n := 0
	digits := s != "" && s[0] >= '0' && s[0] <= '9' // "$1a" is the group 1, and "a"
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || !digits && (s[n] >= 'a' && s[n] <= 'z' || s[n] == '_')) {
		n++
	}
	return s[:n], s[n:], nil
}

func lookUpVariable(name string, groups int) (v Variable, group int, err error) {
	if v, ok := variableNames[name]; ok {
		return v, 0, nil
	}
	if name != "" && strings.Trim(name, "0123456789") == "" {
		if len(name) <= 2 {
			for _, c := range name {
				group = 10*group + int(c-'0')
			}
			if group <= groups {
				return variableGroup, group, nil
			}
		}
		return 0, 0, fmt.Errorf("$%s: there is no such group in the regular expression", name)
	}
	return 0, 0, fmt.Errorf("$%s is not a variable: want one of %s, or $$ for a dollar sign", name, variablesWanted)
}

// Append appends the text with its variables replaced.
func (t *Template) Append(out []byte, values Values) []byte {
	return t.appendGroups(out, values, nil, nil)
}

// appendGroups is Append for a template with groups, whose positions in text are
// those of [regexp.Regexp.FindSubmatchIndex].
func (t *Template) appendGroups(out []byte, values Values, text []byte, groups []int) []byte {
	for i := range t.parts {
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
