package traefik

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

// Template is a rule with substitutions. It is not one of text/template: with that package
// the linker keeps every exported method, a third of the program.
type Template struct {
	texts         []string // before, between and after substitutions
	substitutions []substitution
}

// substitution is what stands between "{{" and "}}".
type substitution struct {
	label     string // a tag; empty: the name of the service
	normalize bool
}

var errTemplate = errors.New(`want text with places such as {{ .Name }}, {{ normalize .Name }}, {{ index .Labels "TAG" }} and {{ normalize (index .Labels "TAG") }}`)

var substitutionText = regexp.MustCompile("^-?\\s*(normalize\\s+)?(?:\\.Name|(\\()?index\\s+\\.Labels\\s+(?:\"([^\"\\\\]+)\"|`([^`]+)`)(\\))?)\\s*-?$")

// ParseDefaultRule parses a template for a rule. It has the name of the service, .Name, the
// tags, .Labels, and the function normalize, which turns a name into one for a host.
func ParseDefaultRule(text string) (*Template, error) {
	t := new(Template)
	for {
		before, rest, found := strings.Cut(text, "{{")
		t.texts = append(t.texts, before)
		if !found {
			return t, nil
		}
		inside, after, closed := strings.Cut(rest, "}}")
		m := substitutionText.FindStringSubmatch(inside)
		if !closed || m == nil || (m[2] == "") != (m[5] == "") {
			return nil, errTemplate
		}
		t.substitutions = append(t.substitutions, substitution{label: m[3] + m[4], normalize: m[1] != ""})
		text = after
	}
}

// Reads reports whether the rule may depend on the value of a tag, of Traefik or not.
func (t *Template) Reads(tag string) bool {
	key, _, ok := strings.Cut(tag, "=")
	return t != nil && ok && slices.ContainsFunc(t.substitutions, func(p substitution) bool { return p.label == key && key != "" })
}

// expand returns the rule of a service. label returns the value of a tag, or "".
func (t *Template) expand(service string, label func(string) string) string {
	var b strings.Builder
	for i, p := range t.substitutions {
		b.WriteString(t.texts[i])
		value := service
		if p.label != "" {
			value = label(p.label)
		}
		if p.normalize {
			value = normalize(value)
		}
		b.WriteString(value)
	}
	b.WriteString(t.texts[len(t.substitutions)])
	return b.String()
}
