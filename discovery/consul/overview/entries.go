package overview

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"path"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Who may register in Consul decides how long its lists are. With more, an overview is incomplete.
const (
	maxEntries = 1_000_000 // of all lists together: about 100 MB
	maxPairs   = 50_000    // of a proxy's name and a service
	maxNodes   = 50_000    // each has a query of its own, which takes 6 KB
)

// owner is the owner of an entry: the instances of a service or, if the service is empty, a node.
type owner struct{ service, node string }

// entries are the entries of the latest answer of a list: the owner of each, by a hash
// of the entry's bytes. It is not safe for concurrent use.
//
// Most entries are the same in the next answer, byte for byte. Only entries with a new
// hash are decoded.
type entries struct {
	seed   maphash.Seed
	owners map[uint64]owner // 64 bits and a random seed: collisions do not matter
	total  *atomic.Int64    // of entries, in all lists of the overview
	// proxied is called with each new proxy instance, and the service behind it. May be nil.
	proxied func(proxy, service string)
}

func newEntries(total *atomic.Int64) *entries {
	return &entries{seed: maphash.MakeSeed(), total: total}
}

// hold replaces the entries, and so their part of total.
func (l *entries) hold(owners map[uint64]owner) {
	l.total.Add(int64(len(owners) - len(l.owners)))
	l.owners = owners
}

// compareChecks reads an answer of /v1/health/state/STATE, and calls changed with the owners of all
// added, changed and removed entries. After an error it has not called changed.
func (l *entries) compareChecks(answer []byte, changed func(owner)) error {
	list := entryReader{known: l}
	if err := decode(answer, &list); err != nil {
		return err
	}
	if list.sums == nil {
		return errors.New("the answer is not a list of checks")
	}
	l.replace(list, changed)
	return nil
}

// compareInstances is compareChecks for /v1/catalog/node-services/NODE. A missing node
// has no instances.
func (l *entries) compareInstances(answer []byte, changed func(owner)) error {
	node := struct{ Services entryReader }{entryReader{known: l}}
	if err := decode(answer, &node); err != nil {
		return err
	}
	l.replace(node.Services, changed)
	return nil
}

func (l *entries) replace(latest entryReader, changed func(owner)) {
	for sum, o := range l.owners {
		if _, ok := latest.sums[sum]; !ok {
			changed(o)
		}
	}
	l.hold(latest.sums)
	for _, o := range latest.added {
		changed(o)
	}
}

// entryReader decodes a list of entries.
type entryReader struct {
	known *entries
	sums  map[uint64]owner // nil: there was no list
	added []owner          // owners of the new entries
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (r *entryReader) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	sums := make(map[uint64]owner, len(r.known.owners))
	room := maxEntries - int(r.known.total.Load()) + len(r.known.owners)
	there, err := ReadList(d, func() error {
		entry, err := d.ReadValue()
		if err != nil {
			return err
		}
		sum := maphash.Bytes(r.known.seed, entry)
		if _, twice := sums[sum]; twice {
			return nil
		}
		if len(sums) >= room {
			return fmt.Errorf("the lists of checks and instances have more than %d entries", maxEntries)
		}
		o, known := r.known.owners[sum]
		if !known {
			var fields struct {
				// An instance has a Service, a check a ServiceName.
				Node, Service, ServiceName string
				Proxy                      struct{ DestinationServiceName string }
			}
			if err := decode(entry, &fields); err != nil {
				return err
			}
			if behind := fields.Proxy.DestinationServiceName; behind != "" && r.known.proxied != nil {
				r.known.proxied(fields.Service, behind)
			}
			o = owner{cmp.Or(fields.Service, fields.ServiceName), fields.Node}
			r.added = append(r.added, o)
		}
		sums[sum] = o
		return nil
	})
	if there {
		r.sums = sums
	}
	return err
}

// addresses are the addresses of all nodes, by name. It lacks nodes whose name is no path, such as
// "..": Consul registers them, and its API has no list of their instances.
type addresses map[string]string

// UnmarshalJSONFrom implements json.UnmarshalerFrom. The address of a node is that
// of its instances without an address, and so are its tagged addresses.
func (a *addresses) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	all := make(addresses)
	there, err := ReadList(d, func() error {
		var n struct {
			Node, Address   string
			TaggedAddresses jsontext.Value
		}
		if err := json.UnmarshalDecode(d, &n); err != nil {
			return err
		}
		if path.Clean("/"+n.Node) != "/"+n.Node {
			return nil
		}
		if all[n.Node] = n.Address + string(n.TaggedAddresses); len(all) > maxNodes {
			return fmt.Errorf("more than %d nodes", maxNodes)
		}
		return nil
	})
	if there {
		*a = all
	}
	return err
}

// ReadList calls read for each element of a list. It reports false for null.
func ReadList(d *jsontext.Decoder, read func() error) (there bool, err error) {
	switch token, err := d.ReadToken(); {
	case err != nil:
		return false, err
	case token.Kind() == 'n':
		return false, nil
	case token.Kind() != '[':
		return false, errors.New("not a list")
	}
	for d.PeekKind() != ']' {
		if err := read(); err != nil {
			return false, err
		}
	}
	_, err = d.ReadToken()
	return true, err
}
