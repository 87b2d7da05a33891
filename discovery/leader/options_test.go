package leader

import (
	"strings"
	"testing"
	"time"

	"sluice/discovery"
	"sluice/test/verify"
)

// instances returns instances of "ID", with "+": it has the tag primary, "!": it is critical, "?":
// it is on probation.
func instances(text string) (set []discovery.Instance) {
	for word := range strings.FieldsSeq(text) {
		i := discovery.Instance{Service: "db", ID: strings.TrimRight(word, "+!?"), Node: "node-" + word[:1], Address: "10.0.0.1", Port: 5000 + len(set), Weight: 1}
		if strings.Contains(word, "+") {
			i.Tags = []string{"db", "primary"}
		}
		if strings.Contains(word, "!") {
			i.Status = discovery.StatusCritical
		}
		if strings.Contains(word, "?") {
			i.Probation = time.Unix(1, 0)
		}
		set = append(set, i)
	}
	return set
}

// There is one leader, or none: an instance that claims beside another one is never chosen by a
// guess.
func TestOneLeads(t *testing.T) {
	byTag, byKey, byChecks := Options{Tag: "primary"}, Options{Key: "service/db/leader"}, Options{Passing: true}
	for _, c := range []struct {
		by                 Options
		named, set         string
		want, wantedRivals string
	}{
		{byTag, "", "", "", ""},
		{byTag, "", "a b", "", ""},
		{byTag, "", "a+ b", "a", ""},
		{byTag, "", "a+ b+", "", "a b"},
		{byTag, "", "a+! b+", "b", ""},    // a has not lost the tag yet
		{byTag, "", "a+? b+", "b", ""},    // Consul has lost a, and knows b
		{byTag, "", "a+! b+? c", "b", ""}, // Consul has lost b, and a has claimed before
		{byTag, "", "a+? b?", "a", ""},    // Consul has lost all
		{byTag, "", "a+? b+?", "", "a b"},
		{byTag, "", "a+! b", "a", ""}, // it keeps its connections
		{byTag, "", "a+! b+!", "", "a b"},
		{byChecks, "", "a b! c!", "a", ""},
		{byChecks, "", "a b", "", "a b"},
		{byChecks, "", "a! b!", "", ""},
		{byChecks, "", "a? b!", "a", ""},
		{byKey, "", "a b", "", ""},
		{byKey, "a", "a b", "a", ""},
		{byKey, "pg-1", "db/pg-1 db/pg-2", "db/pg-1", ""},
		{byKey, "db/pg-2", "db/pg-1 db/pg-2", "db/pg-2", ""},
		{byKey, "pg-2", "db/pg-1 db/pg-2-sidecar-proxy", "db/pg-2-sidecar-proxy", ""},
		{byKey, "pg-2", "x/pg-2 y/pg-2", "", "x/pg-2 y/pg-2"},
		{byKey, "node-b", "a b", "b", ""},
		{byKey, "g-1", "db/pg-1", "", ""},
		{byKey, "a", "a! b", "a", ""},
		{byKey, "a", "a? b", "a", ""},
		{byKey, "c", "a b", "", ""},
	} {
		marked, rivals := c.by.mark(instances(c.set), c.named)
		verify.Equal(t, ids(discovery.WithoutFollowers(marked)), c.want, "leader by %s %s of %q", &c.by, c.named, c.set)
		verify.Equal(t, ids(rivals), c.wantedRivals, "rivals by %s %s of %q", &c.by, c.named, c.set)
		verify.Equal(t, ids(marked), ids(instances(c.set)), "the set of %q", c.set)
		verify.DeepEqual(t, unmarked(marked), unmarked(instances(c.set)), "the rest of %q", c.set)
	}
}

func ids(set []discovery.Instance) string {
	var all []string
	for _, i := range set {
		all = append(all, i.ID)
	}
	return strings.Join(all, " ")
}
