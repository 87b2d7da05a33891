package consultest

import (
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
		client, err := api.NewClient(&api.Config{Address: a.HTTPAddress(), Token: token})
		if err != nil {
			t.Fatal(err)
		}
		instances, _, err := client.Health().Service("star", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(instances)
	}
	_, token, err := a.NewToken("reader", `service "star" { policy = "read" } node_prefix "" { policy = "read" }`)
	if err != nil {
		t.Fatal(err)
	}
	if none, one := seen(""), seen(token.SecretID); none != 0 || one != 1 {
		t.Errorf("%d instances without a token, %d with one that may see it", none, one)
	}
	if err := a.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := seen(token.SecretID); n != 1 {
		t.Errorf("%d instances after a restart", n)
	}
}

func TestDocumentedPolicy(t *testing.T) {
	rules, err := DocumentedPolicy("../../docs/consul.md", "## ACLs")
	if want := "service \"star\" { policy = \"read\" }\nnode_prefix \"\" { policy = \"read\" }\n"; err != nil || rules != want {
		t.Errorf("%q, %v", rules, err)
	}
	for _, heading := range []string{"## Nothing", "## How fast"} {
		if rules, err := DocumentedPolicy("../../docs/consul.md", heading); err == nil {
			t.Errorf("%s: %q", heading, rules)
		}
	}
}
