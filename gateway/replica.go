package gateway

import (
	"os"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"sluice/balancer"
	"sluice/config"
)

// What depends on which replica of sluice this is.

// tiersOf returns the selectors of tiers.
func tiersOf(tiers []config.Tier) []balancer.Selector {
	var selectors []balancer.Selector
	for _, t := range tiers {
		s := balancer.Selector{Tags: t.Tags}
		for _, node := range t.Nodes {
			if node == config.LocalNode {
				node, _ = os.Hostname() // "" selects nobody
			}
			s.Nodes = append(s.Nodes, node)
		}
		for _, pair := range t.Meta {
			if s.Meta == nil {
				s.Meta = make(map[string]string, len(t.Meta))
			}
			key, value, _ := strings.Cut(pair, "=")
			s.Meta[key] = value
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

// replicaNumber returns the number at the end of a host name such as
// "sluice-3", as Kubernetes gives to the members of a StatefulSet, or one made of
// the whole name if there is none below replicas. Then two replicas may have
// the same one.
func replicaNumber(host string, replicas int) int {
	name, _, _ := strings.Cut(host, ".")
	digits := name[len(strings.TrimRight(name, "0123456789")):]
	if n, err := strconv.Atoi(digits); err == nil && n < replicas {
		return n
	}
	return int(xxhash.Sum64String(host) % uint64(replicas))
}
