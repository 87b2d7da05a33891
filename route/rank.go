package route

import (
	"cmp"
	"slices"
)

// The blocks of the order. Within a block, compare decides.
const (
	blockDocuments = iota // of documents: with an exact host, or with a priority above 0
	blockPriority         // of tags, with a priority above 0
	blockHost             // with a host
	blockTraefik          // of ClassTraefik, by priority only
	blockNoHost           // without a host
	blockLast             // with a priority below 0
)

func (e *entry) block() int {
	switch r := &e.route; {
	case r.Class == ClassTraefik:
		return blockTraefik
	case r.Priority < 0:
		return blockLast
	case r.Class == ClassDocument && (r.Priority > 0 || e.host.kind == hostExact):
		return blockDocuments
	case r.Priority > 0:
		return blockPriority
	case e.host.kind != hostAny:
		return blockHost
	}
	return blockNoHost
}

// rank sorts entries by precedence and gives each its place. Entries that are equal in all
// other respects keep their order.
func rank(entries []*entry) {
	slices.SortStableFunc(entries, (*entry).compare)
	for i, e := range entries {
		e.rank = int32(i)
	}
}

func (e *entry) compare(o *entry) int {
	block := e.block()
	c := cmp.Or(
		cmp.Compare(block, o.block()),
		cmp.Compare(o.route.Priority, e.route.Priority),
	)
	if c != 0 || block == blockTraefik {
		return c
	}
	return cmp.Or(
		e.host.compare(o.host),
		e.path.compare(&o.path),
		cmp.Compare(len(o.conditions), len(e.conditions)),
	)
}

// compare orders paths by specificity: exact ones, prefixes, regular expressions, and
// longer ones first.
func (p *pathPattern) compare(o *pathPattern) int {
	class := func(m PathMatch) int {
		switch m {
		case PathExact:
			return 0
		case PathRegexp:
			return 2
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(class(p.match), class(o.match)),
		cmp.Compare(len(o.text), len(p.text)),
		cmp.Compare(p.match, o.match), // "prefix" before "string_prefix"
	)
}
