package gateway

import (
	"os"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"sluice/balancer"
	"sluice/config"
)

// tiersOf returns the selectors of tiers.
func tiersOf(tiers []config.Tier) []balancer.Selector {
	var selectors []balancer.Selector
	for _, t := range tiers {
		s := balancer.Selector{Tags: t.Tags, Meta: config.MetaOf(t.Meta)}
		for _, node := range t.Nodes {
			if node == config.LocalNode {
				node, _ = os.Hostname() // "" selects no peer
			}
			s.Nodes = append(s.Nodes, node)
		}
		selectors = append(selectors, s)
	}
	return selectors
}

func subsetOf(s config.Subset) balancer.Subset {
	replica := s.Replica
	if replica < 0 && s.Replicas > 0 {
		host, _ := os.Hostname()
		replica = replicaNumber(host, s.Replicas)
	}
	return balancer.Subset{Size: s.Size, Replica: max(replica, 0), Replicas: s.Replicas}
}

// replicaNumber returns the number at the end of a host name, such as "sluice-3" in a
// StatefulSet of Kubernetes. Without a number below replicas it returns a hash of the name,
// which two replicas may have in common.
func replicaNumber(host string, replicas int) int {
	name, _, _ := strings.Cut(host, ".")
	digits := name[len(strings.TrimRight(name, "0123456789")):]
	if n, err := strconv.Atoi(digits); err == nil && n < replicas {
		return n
	}
	return int(xxhash.Sum64String(host) % uint64(replicas))
}
