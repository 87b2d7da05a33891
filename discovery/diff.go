package discovery

// Changes is the difference between two sets. Each slice is sorted by key.
type Changes struct {
	Added   []Instance
	Removed []Instance
	Updated []Update
}

// Update is a change of an instance with the same key.
type Update struct {
	Old, New Instance
}

// Empty reports whether nothing changed.
func (c Changes) Empty() bool {
	return len(c.Added) == 0 && len(c.Removed) == 0 && len(c.Updated) == 0
}

// Diff compares two sets by key. They may be in any order and are not modified. Of
// several instances with the same key, the one that Normalize selects counts.
func Diff(before, after []Instance) Changes {
	before, after = byKey(before), byKey(after)
	var c Changes
	for len(before) > 0 && len(after) > 0 {
		switch order := compareKeys(before[0], after[0]); {
		case order < 0:
			c.Removed = append(c.Removed, before[0])
			before = before[1:]
		case order > 0:
			c.Added = append(c.Added, after[0])
			after = after[1:]
		default:
			if !before[0].Equal(after[0]) {
				c.Updated = append(c.Updated, Update{Old: before[0], New: after[0]})
			}
			before, after = before[1:], after[1:]
		}
	}
	c.Removed = append(c.Removed, before...)
	c.Added = append(c.Added, after...)
	return c
}

// byKey returns the instances of set sorted by key, without duplicates. It returns set
// itself if it is sorted, as the sets of a Manager are.
func byKey(set []Instance) []Instance {
	ascending := true
	for i := 1; i < len(set) && ascending; i++ {
		ascending = compareKeys(set[i-1], set[i]) < 0
	}
	if ascending {
		return set
	}
	return Normalize(set)
}
