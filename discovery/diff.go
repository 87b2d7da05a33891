package discovery

import "slices"

// Changes is what leads from one set of instances to another. Each slice is
// sorted by key.
type Changes struct {
	Added   []Instance
	Removed []Instance
	Updated []Update
}

// Update is an instance that kept its key and changed otherwise.
type Update struct {
	Old, New Instance
}

// Empty reports whether nothing changed.
func (c Changes) Empty() bool {
	return len(c.Added) == 0 && len(c.Removed) == 0 && len(c.Updated) == 0
}

// Diff compares two sets by key. They may be in any order and are not
// changed; of several instances with the same key the last one counts.
func Diff(old, new []Instance) Changes {
	old, new = byKey(old), byKey(new)
	var c Changes
	for len(old) > 0 && len(new) > 0 {
		switch order := compareKeys(old[0], new[0]); {
		case order < 0:
			c.Removed = append(c.Removed, old[0])
			old = old[1:]
		case order > 0:
			c.Added = append(c.Added, new[0])
			new = new[1:]
		default:
			if !old[0].Equal(new[0]) {
				c.Updated = append(c.Updated, Update{Old: old[0], New: new[0]})
			}
			old, new = old[1:], new[1:]
		}
	}
	c.Removed = append(c.Removed, old...)
	c.Added = append(c.Added, new...)
	return c
}

// byKey returns set in strictly ascending order of keys: set itself when it
// already is, as every set that a Manager hands on.
func byKey(set []Instance) []Instance {
	ascending := true
	for i := 1; i < len(set) && ascending; i++ {
		ascending = compareKeys(set[i-1], set[i]) < 0
	}
	if ascending {
		return set
	}
	sorted := slices.Clone(set)
	slices.SortStableFunc(sorted, compareKeys)
	unique := sorted[:1]
	for _, next := range sorted[1:] {
		if last := &unique[len(unique)-1]; compareKeys(*last, next) == 0 {
			*last = next
		} else {
			unique = append(unique, next)
		}
	}
	return unique
}
