package claim

import (
	"regexp"
	"strings"

	"sluice/tags"
)

// DefaultTag is the beginning of what stands in place of a tag where the default rule asks for
// a route. The rest is the rule.
const DefaultTag = "catalog.default_rule="

// hostLabel matches a label of a host name. RFC 1123, section 2.1; RFC 1035, section 2.3.4.
var hostLabel = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)

// byDefault returns what an instance of a service asks for by the default rule. The reading has
// no tags: the instance has none that would tell it from the others.
func byDefault(rule, service string) (reading tags.Reading) {
	tag := DefaultTag + rule
	if !hostLabel.MatchString(service) {
		reading.Complain(tags.Complaint{Tag: tag, Want: "the name of the service cannot be a part of a host name: want up to 63 letters, digits or '-', " +
			"with a letter or digit at both ends, or a route for it in a tag or in the file"})
		return reading
	}
	host := strings.ToLower(strings.ReplaceAll(rule, "{service}", service))
	reading.Routes = []tags.Route{{Tags: []string{tag}, Keys: tags.Keys{"host": host, "path": "/"}}}
	return reading
}
