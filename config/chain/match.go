package chain

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"sluice/config"
	"sluice/consul/mesh"
	"sluice/route"
	"sluice/tags"
)

// match sets what the requests of a branch must be, as Envoy reads it, and checks it. An error says
// what cannot be understood.
func match(b *config.Branch, m *mesh.RouteMatch) error {
	b.Route.Path, b.Route.Match = "/", string(route.PathPrefix)
	if m != nil && m.HTTP != nil {
		if err := matchHTTP(b, m.HTTP); err != nil {
			return err
		}
	}
	return b.Check()
}

func matchHTTP(b *config.Branch, m *mesh.HTTPMatch) error {
	paths := 0
	for _, p := range []struct {
		text string
		how  route.PathMatch
	}{{m.PathExact, route.PathExact}, {m.PathPrefix, route.PathStringPrefix}, {m.PathRegex, route.PathRegexp}} {
		if p.text == "" {
			continue
		}
		b.Route.Path, b.Route.Match = p.text, string(p.how)
		paths++
	}
	switch {
	case paths > 1:
		return errors.New("more than one of path_exact, path_prefix and path_regex")
	case m.PathRegex != "":
		whole, err := wholeText(m.PathRegex)
		if err != nil {
			return fmt.Errorf("path_regex: %w", err)
		}
		b.Route.Path = whole
	default:
		b.IgnoreCase = m.CaseInsensitive
	}
	var all, none route.Conditions
	for _, h := range m.Header {
		value, err := valueOf(&h)
		if err != nil {
			return fmt.Errorf("header %q: %w", tags.Shorten(h.Name), err)
		}
		value.Name = strings.ToLower(value.Name)
		if !h.Invert {
			all.Headers = append(all.Headers, value)
			continue
		}
		none.Headers = append(none.Headers, value)
		if value.Kind != route.ValuePresent { // Envoy inverts how a value is compared: there must be one
			all.Headers = append(all.Headers, route.Value{Name: value.Name, Kind: route.ValuePresent})
		}
	}
	for _, q := range m.QueryParam {
		value, err := valueOf(&q)
		if err == nil && (q.Invert || q.Prefix != "" || q.Suffix != "") {
			err = errors.New("a condition that parameters of the query do not have")
		}
		if err != nil {
			return fmt.Errorf("query_param %q: %w", tags.Shorten(q.Name), err)
		}
		all.Queries = append(all.Queries, value)
	}
	for _, method := range m.Methods {
		if !isMethod(method) {
			return fmt.Errorf("method %q", tags.Shorten(method))
		}
	}
	b.Route.Methods = m.Methods
	if len(none.Headers) > 0 {
		all.Not = &none
	}
	if len(all.Headers)+len(all.Queries) > 0 || all.Not != nil {
		b.Route.When = &config.Conditions{More: &all}
	}
	return nil
}

var isMethod = regexp.MustCompile(`^[A-Z][A-Z0-9_-]*$`).MatchString

// valueOf returns a condition for a value.
func valueOf(m *mesh.ValueMatch) (value route.Value, err error) {
	value.Name = m.Name
	kinds := 0
	set := func(given bool, kind route.ValueKind, text string) {
		if given {
			value.Kind, value.Text = kind, text
			kinds++
		}
	}
	set(m.Present, route.ValuePresent, "")
	set(m.Exact != "", route.ValueIs, m.Exact)
	set(m.Prefix != "", route.ValueMatches, "^"+regexp.QuoteMeta(m.Prefix))
	set(m.Suffix != "", route.ValueMatches, regexp.QuoteMeta(m.Suffix)+"$")
	if m.Regex != "" {
		var whole string
		if whole, err = wholeText(m.Regex); err != nil {
			return value, err
		}
		set(true, route.ValueMatches, whole)
	}
	if kinds != 1 {
		return value, errors.New("not exactly one of present, exact, prefix, suffix and regex")
	}
	return value, nil
}

// wholeText returns an expression that matches the texts that expression matches as a whole, as
// Envoy compares.
func wholeText(expression string) (string, error) {
	if _, err := route.CompileRegexp(expression); err != nil {
		return "", fmt.Errorf("%q is not a regular expression that Go accepts: %s", tags.Shorten(expression), tags.Shorten(err.Error()))
	}
	return "^(?:" + expression + ")$", nil
}
