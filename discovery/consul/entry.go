package consul

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/hashicorp/consul/api"

	"sluice/discovery"
	"sluice/discovery/consul/overview"
)

// serviceEntry has the used fields of an api.ServiceEntry. Decoding all of it takes
// several times as long.
type serviceEntry struct {
	Node    *entryNode
	Service *entryService
	Checks  []*entryCheck
}

// address returns the address of the service: "If a service address is empty, the
// address of the node is used."
func (e serviceEntry) address() string {
	return strings.Trim(cmp.Or(e.Service.Address, e.Node.Address), "[]")
}

// serfHealth is the check by which the servers report the health of a node's agent.
const serfHealth = "serfHealth"

// unchecked reports whether checks are critical, and none of the critical ones has an output. An
// agent defers an output that comes without a new status by minutes, so a check without one may
// have failed: first is the time in which one of them must have run; 0: their agent is gone.
func (e serviceEntry) unchecked() (critical bool, first time.Duration) {
	gone := false
	for _, c := range e.Checks {
		if c == nil || checkStatus(c.Status) != discovery.StatusCritical {
			continue
		}
		// Its agent runs it within the first interval.
		switch due := CheckTime(c.Interval, c.Timeout); {
		case c.CheckID == serfHealth:
			gone = true
		case c.Output != "":
			return false, 0
		case first == 0 || due < first:
			first = due
		}
		critical = true
	}
	if gone {
		first = 0
	}
	return critical, first
}

type entryNode struct{ Node, Address, Datacenter string }

type entryService struct {
	Kind, ID, Service, Address string
	Port                       int
	Ports                      []entryPort
	Tags                       []string
	Meta                       map[string]string
	Weights                    entryWeights
	ModifyIndex                uint64 // of the last change of the registration
	Connect                    *entryConnect

	tag        string // of Address, if it is a tagged address
	taggedPort int    // of the tagged address; 0: it has none
}

// has reports whether s has all tags, whose case Consul ignores when it selects.
func (s *entryService) has(tags []string) bool {
	return !slices.ContainsFunc(tags, func(tag string) bool {
		return !slices.ContainsFunc(s.Tags, func(own string) bool { return strings.EqualFold(own, tag) })
	})
}

type entryPort struct {
	Name    string
	Port    int
	Default bool
}

// port returns the port with the name; 0: there is none. Without a name it is the port of the
// tagged address, or else the default port of several, or else the only one.
func (s *entryService) port(name string) int {
	if name == "" && s.taggedPort != 0 {
		return s.taggedPort
	}
	for _, p := range s.Ports {
		if name != "" && p.Name == name || name == "" && p.Default {
			return p.Port
		}
	}
	if name != "" {
		return 0
	}
	return s.Port
}

type entryWeights struct{ Passing, Warning int }

type entryCheck struct {
	CheckID, Name, Status, Output, Notes string

	Interval, Timeout        string // as durations; empty: the default, or the check has none
	CreateIndex, ModifyIndex uint64
}

const (
	usualInterval = 10 * time.Second // of a check with an unknown interval, such as a TTL check
	usualTimeout  = 10 * time.Second // Consul's default
)

// CheckTime returns the time in which a check has a result of what happens now, by its interval and
// its timeout as Consul shows them: durations, or empty.
func CheckTime(interval, timeout string) time.Duration {
	every, _ := time.ParseDuration(interval)
	limit, _ := time.ParseDuration(timeout)
	if every <= 0 {
		return usualInterval
	}
	if limit <= 0 {
		limit = usualTimeout
	}
	return every + limit
}

// taggedEntry is a serviceEntry with tagged addresses, which most services do not need.
type taggedEntry struct {
	Node *struct {
		entryNode
		TaggedAddresses map[string]string
	}
	Service *struct {
		entryService
		TaggedAddresses map[string]api.ServiceAddress
	}
	Checks []*entryCheck
}

// at returns the entry with the address that has the tag.
func (e taggedEntry) at(tag string) serviceEntry {
	chosen := serviceEntry{Checks: e.Checks}
	if e.Node != nil {
		chosen.Node = &e.Node.entryNode
	}
	if e.Service != nil {
		chosen.Service = &e.Service.entryService
	}
	if e.Node != nil && e.Service != nil {
		chosen.useTagged(tag, e.Service.TaggedAddresses, e.Node.TaggedAddresses)
	}
	return chosen
}

// useTagged makes the tagged address the address of the instance: the service's, or else, as in
// Consul's DNS, the node's, if the service has no address of its own. Without both, the
// address stays what it is.
func (e serviceEntry) useTagged(tag string, ofService map[string]api.ServiceAddress, ofNode map[string]string) {
	s := e.Service
	if at := ofService[tag]; at.Address != "" {
		s.Address, s.tag = at.Address, tag
		s.taggedPort = at.Port
	} else if address := ofNode[tag]; address != "" && s.Address == "" {
		s.Address, s.tag = address, tag
	}
}

// shorten returns the fields of e that are decoded of an answer.
func shorten(e *api.ServiceEntry) serviceEntry {
	short := serviceEntry{}
	if e == nil {
		return short
	}
	if e.Node != nil {
		short.Node = &entryNode{e.Node.Node, e.Node.Address, e.Node.Datacenter}
	}
	if s := e.Service; s != nil {
		short.Service = &entryService{
			Kind: string(s.Kind), ID: s.ID, Service: s.Service, Address: s.Address, Port: s.Port,
			Tags: s.Tags, Meta: s.Meta, Weights: entryWeights(s.Weights), ModifyIndex: s.ModifyIndex,
		}
		for _, p := range s.Ports {
			short.Service.Ports = append(short.Service.Ports, entryPort{p.Name, p.Port, p.Default})
		}
	}
	for _, c := range e.Checks {
		check := (*entryCheck)(nil)
		if c != nil {
			check = &entryCheck{
				CheckID: c.CheckID, Name: c.Name, Status: c.Status, Output: c.Output, Notes: c.Notes,
				CreateIndex: c.CreateIndex, ModifyIndex: c.ModifyIndex,
			}
		}
		short.Checks = append(short.Checks, check)
	}
	return short
}

// preparedResult is the result of a prepared query. An answer of /v1/health/service/SERVICE is its
// Nodes alone.
type preparedResult struct {
	Nodes entryList
	DNS   struct{ TTL string }
}

// maxEntries limits the entries of an answer: millions of entries of two octets, which an answer
// may have, take several hundred times as much memory.
const maxEntries = 100_000

// entryList is a list of up to maxEntries, with the addresses that have the tag; "": the usual
// ones.
type entryList struct {
	tag string
	all []serviceEntry // nil: there was no list
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *entryList) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	all := []serviceEntry{}
	there, err := overview.ReadList(d, func() error {
		if len(all) == maxEntries {
			return fmt.Errorf("more than %d entries", maxEntries)
		}
		if l.tag != "" {
			var e taggedEntry
			err := json.UnmarshalDecode(d, &e)
			all = append(all, e.at(l.tag))
			return err
		}
		all = append(all, serviceEntry{})
		return json.UnmarshalDecode(d, &all[len(all)-1])
	})
	if there {
		l.all = all
	}
	return err
}

// read decodes one value. It ignores unknown fields.
func read(r io.Reader, to any) error {
	if err := json.UnmarshalRead(r, to, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}
