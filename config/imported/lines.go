package imported

import (
	"regexp"
	"strings"

	"sluice/tags"
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

// options returns the words "NAME=VALUE" of a line. One without a value has the value "".
func (l line) options() map[string]string {
	all := make(map[string]string)
	for _, word := range l.words {
		name, value, _ := strings.Cut(word, "=")
		all[name] = value
	}
	return all
}

// nameInConsul is a name of Consul's DNS interface.
var nameInConsul = regexp.MustCompile(`^(?:_([a-z0-9-]+)\._tcp|([a-z0-9-]+))\.service\.consul\.?(?::[0-9]+)?$`)

// inConsul returns the service in Consul whose name in DNS an address has; "": it has none.
func inConsul(address string) string {
	if name := nameInConsul.FindStringSubmatch(address); name != nil {
		return name[1] + name[2]
	}
	return ""
}

// peer adds a server to a service: a peer, or the service in Consul whose name in DNS it has.
func (l line) peer(d *draft, address, weight string, service tags.Keys) {
	if known := inConsul(address); known != "" {
		service["consul"] = tags.Keys{"service": known}
		d.note(l.at, "server %s: its instances are from Consul at consul.addresses, and not by DNS", l.word(1))
		return
	}
	if weight != "" {
		address += " weight=" + weight
	}
	extend(service, address, "peers")
}

// extend adds a text to the list at a path of keys.
func extend(keys tags.Keys, text string, path ...string) {
	known, _ := keys.Get(path...).([]string)
	keys.Set(append(known, text), path...)
}
