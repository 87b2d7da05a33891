package consul

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

// slots returns the nodes whose last query blocks.
func (c *overviewBubble) slots() map[string]bool {
	nodes := make(map[string]bool)
	for _, r := range c.Requests() {
		node, ok := strings.CutPrefix(r.Path, "/v1/catalog/node-services/")
		switch {
		case ok && r.Index > 0:
			nodes[node] = true
		case ok:
			delete(nodes, node)
		}
	}
	return nodes
}

// With more nodes than slots, those that changed last have a slot.
func TestNodesThatChangedLastHaveASlot(t *testing.T) {
	inOverviewBubble(t, 25, func(t *testing.T, c *overviewBubble) {
		for round := range 3 {
			held, changed := c.slots(), ""
			for n := range overviewServices {
				e := c.instance(n, "c")
				if changed = e.Node.Node; !held[changed] {
					c.edit(serviceName(n), func(all []*api.ServiceEntry) []*api.ServiceEntry { return append(all, e) })
					break
				}
			}
			time.Sleep(defaultWait + 10*sec)
			synctest.Wait()
			if now := c.slots(); len(now) != overviewSlots || !now[changed] || held[changed] {
				t.Errorf("round %d: %d nodes have a slot, want %d, including %s", round, len(now), overviewSlots, changed)
			}
		}
	})
}
