package route

import (
	"slices"
	"strings"
	"sync/atomic"
)

// Reads are the parts of a request that conditions of routes read, besides what each request has.
// They are sorted.
type Reads struct {
	Headers []string // in lower case
	Queries []string
	Cookies []string
}

// Reads returns what the conditions of all routes read.
func (t *Table) Reads() Reads {
	var r Reads
	for _, e := range t.entries {
		r.add(&e.route.Conditions)
	}
	for _, names := range []*[]string{&r.Headers, &r.Queries, &r.Cookies} {
		slices.Sort(*names)
		*names = slices.Compact(*names)
	}
	return r
}

func (r *Reads) add(c *Conditions) {
	for _, v := range c.Headers {
		r.Headers = append(r.Headers, strings.ToLower(v.Name))
	}
	for _, v := range c.Queries {
		r.Queries = append(r.Queries, v.Name)
	}
	for _, v := range c.Cookies {
		r.Cookies = append(r.Cookies, v.Name)
	}
	if c.Not != nil {
		r.add(c.Not)
	}
	for i := range c.Any {
		r.add(&c.Any[i])
	}
}

// A Turn comes round for one request at a time, at most once in an interval. The zero value has
// come. It is safe for concurrent use.
type Turn struct{ next atomic.Int64 }

// Take reports whether the turn has come at the time now, and makes the next one come after every,
// both in seconds. If the clock was set back, it has come.
func (t *Turn) Take(now, every int64) bool {
	next := t.next.Load()
	return (now >= next || next-now > every) && t.next.CompareAndSwap(next, now+every)
}

// Turn returns the turn of the requests of a route that a table has found.
func (r *Route) Turn() *Turn { return r.turn }
