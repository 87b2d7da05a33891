package imported

import (
	"regexp"
	"strings"
)

// line is a line or a directive, as words.
type line struct {
	words []string
	at    Place
}

// word returns a word; "": there is none.
func (l line) word(i int) string {
	return strings.Join(l.words[min(i, len(l.words)):min(i+1, len(l.words))], "")
}

// from returns the line from a word on.
func (l line) from(i int) line { return line{l.words[min(i, len(l.words)):], l.at} }

// nameInConsul is a name of Consul's DNS interface.
var nameInConsul = regexp.MustCompile(`^(?:_([a-z0-9-]+)\._tcp|([a-z0-9-]+))\.service\.consul\.?(?::[0-9]+)?$`)

// inConsul returns the service in Consul whose name in DNS an address has; "": it has none.
func inConsul(address string) string {
	if name := nameInConsul.FindStringSubmatch(address); name != nil {
		return name[1] + name[2]
	}
	return ""
}

// notByDNS is the note about a server with a name in Consul.
const notByDNS = "its instances are from Consul at consul.addresses, and not by DNS"
