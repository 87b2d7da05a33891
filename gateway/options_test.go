package gateway

import (
	"os"
	"testing"

	"sluice/balancer"
	"sluice/config"
	"sluice/test/verify"
)

func TestReplicaNumber(t *testing.T) {
	t.Parallel()
	f := func(host string, replicas, want int) {
		t.Helper()
		verify.Equal(t, replicaNumber(host, replicas), want, "%q of %d", host, replicas)
	}
	f("sluice-3", 10, 3)
	f("sluice-0", 1, 0)
	f("sluice03.dc1.example.com", 10, 3)
	for _, host := range []string{"sluice-10", "sluice", "", "sluice-99999999999999999999"} {
		n := replicaNumber(host, 10)
		verify.That(t, n >= 0 && n < 10 && n == replicaNumber(host, 10), "%q: %d", host, n)
	}
}

func TestTiersAndSubsets(t *testing.T) {
	t.Parallel()
	host := verify.Result(os.Hostname()).Must(t)
	got := tiersOf([]config.Tier{{Nodes: []string{"local", "n2"}}, {Tags: []string{"a"}, Meta: []config.Meta{{Value: [2]string{"zone", "b"}}, {Value: [2]string{"x", "y=z"}}}}})
	want := []balancer.Selector{
		{Nodes: []string{host, "n2"}},
		{Tags: []string{"a"}, Meta: map[string]string{"zone": "b", "x": "y=z"}},
	}
	verify.DeepEqual(t, got, want, "got")
	verify.Equal(t, subsetOf(config.Subset{Size: 5, Replica: 2, Replicas: 3}), (balancer.Subset{Size: 5, Replica: 2, Replicas: 3}), "result")
	verify.Equal(t, subsetOf(config.Subset{Replica: -1}), (balancer.Subset{}), "result")
	verify.Equal(t, subsetOf(config.Subset{Size: 5, Replica: -1, Replicas: 1}).Replica, 0, "the replica")
}
