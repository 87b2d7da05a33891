package meshtest

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// allows reports what the intentions of Consul say about a source and a destination. With a
// request, permissions decide by it, as HTTP RBAC does; without one, permissions deny, as network
// RBAC does. It denies if Consul does not answer: Envoy would have an answer.
// https://developer.hashicorp.com/consul/docs/connect/config-entries/service-intentions
func (m *Mesh) allows(destination, source string, r *http.Request) bool {
	connect := m.Client().Connect()
	matches, _, err := connect.IntentionMatch(&api.IntentionMatch{By: api.IntentionMatchDestination, Names: []string{destination}}, nil)
	if err != nil {
		return false
	}
	found := slices.Clone(matches[destination])
	slices.SortStableFunc(found, func(a, b *api.Intention) int { return cmp.Compare(b.Precedence, a.Precedence) })
	for _, i := range found {
		switch {
		case i.SourceName != "*" && !strings.EqualFold(i.SourceName, source):
			continue
		case len(i.Permissions) == 0:
			return i.Action == api.IntentionActionAllow
		}
		for _, p := range i.Permissions {
			if r != nil && permits(p.HTTP, r) {
				return p.Action == api.IntentionActionAllow
			}
		}
		return false // or the default policy, which tests have at deny with permissions
	}
	allowed, _, err := connect.IntentionCheck(&api.IntentionCheck{Source: source, Destination: destination}, nil)
	return err == nil && allowed
}

// permits reports whether a request matches a permission.
func permits(p *api.IntentionHTTPPermission, r *http.Request) bool {
	if p == nil {
		return true
	}
	path := r.URL.Path
	switch {
	case p.PathExact != "" && path != p.PathExact,
		p.PathPrefix != "" && !strings.HasPrefix(path, p.PathPrefix),
		p.PathRegex != "" && !matches(p.PathRegex, path),
		len(p.Methods) > 0 && !slices.Contains(p.Methods, r.Method):
		return false
	}
	return !slices.ContainsFunc(p.Header, func(h api.IntentionHTTPHeaderPermission) bool {
		value := r.Header.Get(h.Name)
		has := len(r.Header.Values(h.Name)) > 0
		switch {
		case h.Exact != "":
			has = value == h.Exact
		case h.Prefix != "":
			has = strings.HasPrefix(value, h.Prefix)
		case h.Suffix != "":
			has = strings.HasSuffix(value, h.Suffix)
		case h.Regex != "":
			has = matches(h.Regex, value)
		}
		return has == h.Invert
	})
}

// matches reports whether all of a text matches, as Envoy's regexes do.
func matches(regex, text string) bool {
	r, err := regexp.Compile("^(?:" + regex + ")$")
	return err == nil && r.MatchString(text)
}
