package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sluice/admin"
	"sluice/admin/fleet"
	"sluice/operator"
	"sluice/test/verify"
)

// What registrants call their instances makes the answer of a replica neither too long to be read,
// nor silent about what it lacks.
func TestUnfinishedIsBounded(t *testing.T) {
	t.Parallel()
	drain := []operator.Order{{Kind: operator.Drain}}
	peers := []admin.Peer{
		{Service: "star", ID: "star-1", Inflight: 3, Orders: drain}, {Service: "star", ID: "star-1", Inflight: 4, Orders: drain},
		{Service: "star", ID: "star-2", Inflight: 9}, {Service: "star", ID: "star-3", Inflight: 9, Orders: []operator.Order{{Kind: operator.Weight}}},
	}
	all, whole := unfinished(peers)
	verify.That(t, whole && len(all) == 1 && all[0].ID == "star-1" && all[0].Inflight == 7, "got %+v, whole %v", all, whole)

	for n := range 100 {
		peers = append(peers, admin.Peer{Service: "long", ID: fmt.Sprint(n, strings.Repeat(`"<`, 250)), Inflight: 1, Orders: drain})
	}
	all, whole = unfinished(peers)
	text := verify.Result(json.Marshal(all)).Must(t)
	verify.That(t, !whole && len(text) <= fleet.MaxUnfinishedBytes && all[0].ID == "star-1", "%d drained peers in %d bytes, whole %v", len(all), len(text), whole)
}
