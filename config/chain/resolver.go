package chain

import (
	"slices"
	"strings"
	"time"

	"sluice/balancer"
	"sluice/config"
	"sluice/consul/mesh"
	"sluice/route"
	"sluice/tags"
)

// defaultConnectTimeout is what Consul compiles for a resolver without connect_timeout.
const defaultConnectTimeout = mesh.Duration(5 * time.Second)

// settings sets what a resolver says of the requests to its instances, where the configuration has
// the default.
func (t *translation) settings(entry string, s *config.Service, n mesh.Node) {
	t.protocol(s)
	r, usual := n.Resolver, config.DefaultService()
	if r.ConnectTimeout > 0 && r.ConnectTimeout != defaultConnectTimeout && s.Timeouts.Connect == usual.Timeouts.Connect {
		s.Timeouts.Connect = *within(r.ConnectTimeout, time.Millisecond, 10*time.Minute)
	}
	if r.RequestTimeout != 0 && s.Timeouts.ResponseHeader == usual.Timeouts.ResponseHeader {
		s.Timeouts.ResponseHeader = *within(r.RequestTimeout, time.Millisecond, maxWait)
	}
	if f := r.Failover; f != nil && f.Policy != nil && !slices.Contains([]string{"", "default", "sequential"}, f.Policy.Mode) {
		t.problem(entry, "the failover policy %q is not carried out: the targets stand in in their order", tags.Shorten(f.Policy.Mode))
	}
	if p := t.Targets[r.Target].PrioritizeByLocality; p != nil && p.Mode != "" && p.Mode != "none" {
		t.problem(entry, "prioritize_by_locality %q is not carried out", tags.Shorten(p.Mode))
	}
	if n.LoadBalancer != nil {
		t.balance(entry, &s.Balance, usual.Balance, n.LoadBalancer)
	}
}

// protocol sets HTTP/2 for peers whose service-defaults say that they speak it.
func (t *translation) protocol(s *config.Service) {
	if usual := config.DefaultService().Upstream.Protocol; s.Upstream.Protocol == usual && (t.Protocol == "http2" || t.Protocol == "grpc") {
		s.Upstream.Protocol = config.ProtocolH2
	}
}

// balance sets the policy of a resolver, unless the configuration has another one than the default.
func (t *translation) balance(entry string, b *config.Balance, usual config.Balance, from *mesh.LoadBalancer) {
	if b.Policy != usual.Policy {
		return
	}
	if c := from.LeastRequestConfig; c != nil && c.ChoiceCount != 0 {
		t.problem(entry, "least_request_config.choice_count is not carried out")
	}
	if c := from.RingHashConfig; c != nil && (c.MinimumRingSize != 0 || c.MaximumRingSize != 0) {
		t.problem(entry, "ring_hash_config is not carried out: sluice has no ring of a size")
	}
	switch from.Policy {
	case "":
	case "random", "round_robin":
		b.Policy = balancer.Policy(from.Policy)
	case "least_request":
		b.Policy = balancer.PolicyLeastConn
	case "ring_hash", "maglev":
		t.hash(entry, b, from)
	default:
		t.problem(entry, "the load-balancer policy %q is not carried out", tags.Shorten(from.Policy))
	}
}

// hash sets the policy hash. Envoy hashes all that a request has of hash_policies together, up to
// the first terminal one; sluice hashes the first that it has.
func (t *translation) hash(entry string, b *config.Balance, from *mesh.LoadBalancer) {
	if b.Subset.Size > 0 { // the configuration refuses these together
		t.problem(entry, "the load-balancer policy %q is not carried out with balance.subset", from.Policy)
		return
	}
	var keys []config.HashKey
	for i, p := range from.HashPolicies {
		text := "client_address"
		if !p.SourceIP {
			text = strings.TrimSuffix(p.Field, "_parameter") + " " + p.FieldValue
		}
		if !p.Terminal && i < len(from.HashPolicies)-1 {
			t.problem(entry, "hash_policies[%d] is not terminal: sluice hashes the first of hash_policies that a request has, and not several together", i)
		}
		if c := p.CookieConfig; c != nil {
			t.problem(entry, "hash_policies[%d].cookie_config is not carried out: sluice does not set the cookie", i)
		}
		key, err := route.ParseHashKey(text)
		if err != nil || key.Source == route.HashPath {
			t.problem(entry, "hash_policies[%d] is not carried out: field %q, field_value %q", i, tags.Shorten(p.Field), tags.Shorten(p.FieldValue))
			continue
		}
		typed := config.HashKey{Text: key.String(), Value: key}
		if !slices.Contains(keys, typed) {
			keys = append(keys, typed)
		}
	}
	if len(keys) == 0 { // Envoy picks any peer then
		b.Policy = balancer.PolicyRandom
		return
	}
	b.Policy, b.Hash.Keys = balancer.PolicyHash, keys
}
