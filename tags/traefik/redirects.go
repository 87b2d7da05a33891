package traefik

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"

	"sluice/route"
	"sluice/tags"
)

func (e *effects) redirectScheme(l label, options *part) {
	scheme := strings.ToLower(l.value)
	if scheme != "http" && scheme != "https" {
		e.refuse(l, "want http or https")
		return
	}
	to := scheme + "://$host"
	if port, ok := options.get("port"); ok && port != "" && port != map[string]string{"http": "80", "https": "443"}[scheme] {
		to += ":" + port
	}
	e.scheme, e.toScheme = scheme, redirectKeys(options)
	e.toScheme["to"] = to + "$path"
}

// redirectKeys returns the keys of a redirect with Traefik's statuses, which are others for GET.
func redirectKeys(options *part) tags.Keys {
	if permanent, _ := options.get("permanent"); isTrue(permanent) {
		return tags.Keys{"code": "308", "get_code": "301"}
	}
	return tags.Keys{"code": "307", "get_code": "302"}
}

// redirectRegexp makes a redirect of what the pattern matches first.
func (e *effects) redirectRegexp(l label, options *part) {
	re, err := route.CompileRegexp(l.value)
	if err != nil {
		e.refuse(l, "want a regular expression in Go's syntax: "+err.Error())
		return
	}
	if e.step != 0 {
		e.refuse(l, "sluice redirects by the URL that the client sent: want the middleware before any that changes the path")
		return
	}
	if e.keys["redirect"] != nil {
		e.refuse(l, "two redirects by pattern: want one, or a router of its own for the other one")
		return
	}
	replacement, _ := options.get("replacement")
	redirect := redirectKeys(options)
	maps.Copy(redirect, within(re, replacement))
	e.keys["redirect"] = redirect
}

// within returns the keys that replace the first match of re. Traefik replaces the match within
// the URL or path, sluice all of it: so the pattern gets groups for the rest.
func within(re *regexp.Regexp, replacement string) tags.Keys {
	const before = 2 // the groups before the groups of re; the second is the match
	return tags.Keys{
		"regexp": "^(.*?)(" + re.String() + ")(.*)$",
		"to":     fmt.Sprintf("${1}%s${%d}", template(replacement, re, before), before+re.NumSubexp()+1),
	}
}

// template returns a replacement in the form of [regexp.Regexp.Expand] as a template of sluice,
// for an expression with before groups in front of re; the last of these is all of re. A name that
// re does not have is empty, as in Go.
func template(replacement string, re *regexp.Regexp, before int) string {
	var b strings.Builder
	for replacement != "" {
		text, after, found := strings.Cut(replacement, "$")
		b.WriteString(text)
		if !found {
			break
		}
		name := word.FindString(after)
		rest := after[len(name):]
		if inner, closed, ok := strings.Cut(strings.TrimPrefix(after, "{"), "}"); strings.HasPrefix(after, "{") && ok && word.FindString(inner) == inner {
			name, rest = inner, closed
		}
		switch group, err := strconv.Atoi(name); {
		case strings.HasPrefix(after, "$"):
			b.WriteString("$$")
			rest = after[1:]
		case name == "":
			b.WriteString("$$")
		case err == nil && group <= re.NumSubexp():
			fmt.Fprintf(&b, "${%d}", group+before)
		case err != nil && re.SubexpIndex(name) > 0:
			fmt.Fprintf(&b, "${%d}", re.SubexpIndex(name)+before)
		}
		replacement = rest
	}
	return b.String()
}

// word is what may follow "$" in a replacement.
var word = regexp.MustCompile(`^[\p{L}\p{Nd}_]+`)
