package claim

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	"sluice/catalog/native"
)

// maxGroups limits the groups of a service.
const maxGroups = 256

// largest returns the group of most of the members with these indexes.
func largest(members []member, indexes []int) string {
	count := make(map[string]int)
	for _, i := range indexes {
		count[groupName(members[i].tags)] += members[i].Weight
	}
	chosen := ""
	for _, name := range slices.Sorted(maps.Keys(count)) {
		if chosen == "" || count[name] > count[chosen] {
			chosen = name
		}
	}
	return chosen
}

// groupName returns the name of the group of instances whose routes are made by tags. An
// instance with more tags belongs to an earlier group, in the order of names.
func groupName(tags []string) string {
	h := fnv.New64a()
	for _, tag := range tags {
		h.Write([]byte(tag + "\x00"))
	}
	return fmt.Sprintf("tags-%04d-%016x", max(0, 9999-len(tags)), h.Sum64())
}

// has reports whether an entry of the meta makes a route.
func (i Instance) has(key, value string) bool {
	found, ok := i.Meta[key]
	return ok && found == value && strings.HasPrefix(key, native.MetaRoute)
}

// groupsOf divides instances by the tags that make their routes. The instances without any
// belong to no group. It reports false for too many groups.
func groupsOf(members []member) (map[string]Group, bool) {
	groups := make(map[string]Group)
	for _, m := range members {
		if len(m.tags) == 0 {
			continue
		}
		var g Group
		for _, tag := range m.tags {
			key, value, isMeta := strings.Cut(tag, "=")
			if isMeta && m.has(key, value) {
				if g.Meta == nil {
					g.Meta = make(map[string]string)
				}
				g.Meta[key] = value
				continue
			}
			g.Tags = append(g.Tags, tag)
		}
		groups[groupName(m.tags)] = g
	}
	return groups, len(groups) <= maxGroups
}
