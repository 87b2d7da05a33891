package config

import "regexp"

// gone are the keys that sluice had once and has no more, with what to do instead.
// Whoever has one in a file asked for something that does not happen, so the file
// is refused.
var gone = []struct {
	key *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`^services\..*\.consul\.near$`),
		"no such key any more: requests go to all instances, in whatever order Consul lists them; for those nearby first use balance.tiers, such as [{nodes: [local]}]"},
	{regexp.MustCompile(`^services\..*\.balance\.tiers\[\d+\]\.datacenters$`),
		"no such key any more: all peers of a service are of one data centre at a time; consul.datacenters says in which order"},
}

// goneKey says what to do instead of using a key that there was once, or "".
func goneKey(key string) string {
	for _, g := range gone {
		if g.key.MatchString(key) {
			return g.why
		}
	}
	return ""
}
