package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// filterNames are the names that filters of Consul's other paths, such as /v1/catalog/service and
// /v1/agent/services, have for what a filter of /v1/health/service names otherwise. Consul answers
// 400 to them.
var filterNames = map[string]string{
	"Tags": "Service.Tags", "ServiceTags": "Service.Tags",
	"Meta": "Service.Meta", "ServiceMeta": "Service.Meta",
	"Port": "Service.Port", "ServicePort": "Service.Port",
	"Kind": "Service.Kind", "ServiceKind": "Service.Kind",
	"Weights": "Service.Weights", "ServiceWeights": "Service.Weights",
	"ID": "Service.ID", "ServiceID": "Service.ID", "ServiceName": "Service.Service", "ServiceAddress": "Service.Address",
	"NodeMeta": "Node.Meta", "Datacenter": "Node.Datacenter",
}

var (
	// filterText is a text in a filter.
	filterText = regexp.MustCompile("\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`")
	// filterSelector is a selector in a filter without texts: before an operator, or after "in".
	filterSelector = regexp.MustCompile(`\bin\s+([A-Za-z_][\w./-]*)|([A-Za-z_][\w./-]*)(?:\[[^\]]*\])*\s*(?:==|!=)|([A-Za-z_][\w./-]*)(?:\[[^\]]*\])*\s+(?:is|(?:not\s+)?(?:contains|matches))\b`)
)

// healthFilter returns a filter of Consul with the names of /v1/health/service: see
// https://developer.hashicorp.com/consul/api-docs/health#filtering-2. wrong is a selector that this
// path does not have; empty: none.
func healthFilter(filter string) (translated, wrong string) {
	blank := filterText.ReplaceAllStringFunc(filter, func(s string) string { return strings.Repeat("0", len(s)) })
	var b strings.Builder
	at := 0
	for _, found := range filterSelector.FindAllStringSubmatchIndex(blank, -1) {
		from, to := found[2], found[3]
		for group := 4; from < 0; group += 2 {
			from, to = found[group], found[group+1]
		}
		selector := filter[from:to]
		first, rest, below := strings.Cut(selector, ".")
		switch name := filterNames[first]; {
		case name != "":
			first = name
		case (first == "Node" || first == "Service") && !below:
			first += "." + first
		case first == "Node" || first == "Service" || first == "Checks":
		default:
			return filter, selector
		}
		b.WriteString(filter[at:from] + first)
		if below {
			b.WriteString("." + rest)
		}
		at = to
	}
	return b.String() + filter[at:], ""
}

// wantFilter says which selectors a filter may have.
func wantFilter(wrong string) string {
	return fmt.Sprintf("selector %s: want one that begins with Service., Node. or Checks., such as Service.Tags, or one of %s",
		wrong, strings.Join(slices.Sorted(maps.Keys(filterNames)), ", "))
}
