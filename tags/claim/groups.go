package claim

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"sluice/config"
	"sluice/tags/native"
)

// maxGroups limits the groups of a service.
const maxGroups = 256

// oldest returns the group of the oldest of the members with these indexes, and of several the one
// with the smallest name: all replicas choose the same.
func oldest(members []member, indexes []int) string {
	return groupName(members[slices.MinFunc(indexes, func(i, j int) int {
		return cmp.Or(members[i].Compare(members[j].Age), cmp.Compare(groupName(members[i].tags), groupName(members[j].tags)))
	})].tags)
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
	return ok && found == value && native.AsksForRoute(key)
}

// groupsOf divides instances by the tags that make their routes. Those without any are the last
// group, which selects all that the others leave, if the default rule makes routes for them; else
// they belong to no group. It reports false for too many groups.
func groupsOf(members []member) (map[string]config.Group, bool) {
	groups := make(map[string]config.Group)
	for _, m := range members {
		if len(m.tags) == 0 && len(m.routes) == 0 {
			continue
		}
		var g config.Group
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
