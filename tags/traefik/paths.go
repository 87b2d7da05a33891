package traefik

import (
	"fmt"
	"strings"

	"sluice/route"
	"sluice/tags"
)

func (e *effects) stripPrefix(l label, _ *part) {
	if !e.change(l, stepStrip) {
		return
	}
	for _, prefix := range list(l.value) {
		if prefix[0] != '/' {
			prefix = "/" + prefix
		}
		e.strip = append(e.strip, prefix)
	}
}

func (e *effects) stripPrefixRegexp(l label, _ *part) {
	if !e.change(l, stepRewrite) {
		return
	}
	var patterns []string
	for _, pattern := range list(l.value) {
		if hasPlaceholder(pattern) {
			e.refuse(l, "placeholders are of version 2: want "+version3(pattern))
			return
		}
		patterns = append(patterns, strings.TrimPrefix(pattern, "^"))
	}
	re, err := route.CompileRegexp("^(?:" + strings.Join(patterns, "|") + ")/?(.*)$")
	if err != nil {
		e.refuse(l, "want regular expressions in Go's syntax: "+err.Error())
		return
	}
	e.keys["rewrite"] = tags.Keys{"regexp": re.String(), "to": fmt.Sprintf("/${%d}", re.NumSubexp())}
}

func (e *effects) addPrefix(l label, _ *part) {
	if !e.change(l, stepAdd) {
		return
	}
	if l.value[0] != '/' {
		e.refuse(l, "want a path that begins with /")
		return
	}
	e.keys["add_prefix"] = l.value
}

func (e *effects) replacePath(l label, _ *part) {
	if e.change(l, stepRewrite) {
		e.keys["rewrite"] = tags.Keys{"regexp": "^.*$", "to": strings.ReplaceAll(l.value, "$", "$$")}
	}
}

func (e *effects) replacePathRegexp(l label, options *part) {
	if !e.change(l, stepRewrite) {
		return
	}
	re, err := route.CompileRegexp(l.value)
	if err != nil {
		e.refuse(l, "want a regular expression in Go's syntax: "+err.Error())
		return
	}
	// Traefik changes nothing without a replacement.
	if replacement, _ := options.get("replacement"); replacement != "" {
		e.keys["rewrite"] = within(re, replacement)
	}
}
