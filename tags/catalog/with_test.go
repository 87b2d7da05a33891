package catalog

import (
	"fmt"
	"testing"

	"sluice/discovery"
	"sluice/test/verify"
)

// While the routes of new tags are awaited, instances of before stay beside a set, and in place of
// instances with the same keys.
func TestInstancesThatStay(t *testing.T) {
	const number = 4000
	var set, kept []discovery.Instance
	for n := range number {
		i := discovery.Instance{Service: "star", ID: fmt.Sprintf("star-%05d", n), Address: "192.0.2.1", Port: 1 + n, Tags: []string{"old"}}
		kept = append(kept, i)
		i.Tags = []string{"new"}
		if n%2 == 0 {
			i.ID += "-new"
		}
		set = append(set, i)
	}
	all := with(set, kept)
	before := 0
	for i := range all {
		if all[i].Tags[0] == "old" {
			before++
		}
	}
	verify.Equal(t, len(all), number+number/2, "instances")
	verify.Equal(t, before, number, "instances as before")
}
