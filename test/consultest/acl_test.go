package consultest

import (
	"sluice/test/verify"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
)

func TestACLsAreSetUpAsAnOperatorDoes(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Mode: Server, Node: "one", ACLs: true})
	register(t, a, "star-1")
	awaitInstances(t, a, 1)
	// With a token of its own the agent brings its node into the catalog.
	Await(t, "the node has its address", func() bool {
		node, _, err := a.Client().Catalog().Node("one", nil)
		return err == nil && node != nil && node.Node.TaggedAddresses["lan"] != ""
	})
	if _, _, err := a.Client().ACL().Bootstrap(); err == nil || !strings.Contains(err.Error(), "no longer allowed") {
		t.Errorf("another bootstrap: error %v", err)
	}
	seen := func(token string) int {
		t.Helper()
		client := verify.Result(api.NewClient(&api.Config{Address: a.HTTPAddress(), Token: token})).Must(t)
		instances, _, err := client.Health().Service("star", "", false, nil)
		verify.NoError(t, err)
		return len(instances)
	}
	_, token, err := a.NewToken("reader", `service "star" { policy = "read" } node_prefix "" { policy = "read" }`)
	verify.NoError(t, err)
	none, one := seen(""), seen(token.SecretID)
	verify.That(t, none == 0 && one == 1, "%d instances without a token, %d with one that may see it", none, one)
	verify.NoError(t, a.Restart(t.Context()))
	verify.Equal(t, seen(token.SecretID), 1, "instances after a restart")
}

func TestDocumentedPolicy(t *testing.T) {
	rules, err := DocumentedPolicy("../../docs/consul.md", "## ACLs")
	want := "service \"star\" { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }\n"
	verify.That(t, err == nil && rules == want, "%q, %v", rules, err)
	for _, heading := range []string{"## Nothing", "## How fast"} {
		rules, err := DocumentedPolicy("../../docs/consul.md", heading)
		verify.That(t, err != nil, "%s: %q", heading, rules)
	}
}
