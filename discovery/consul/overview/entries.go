package overview

import (
	"cmp"
	"errors"
	"hash/maphash"

	"github.com/go-json-experiment/json/jsontext"
)

// owner is the owner of an entry: the instances of a service or, if the service is
// empty, a node.
type owner struct{ service, node string }

// entries are the entries of the latest answer of a list: the owner of each, by a hash
// of the entry's bytes. It is not safe for concurrent use.
//
// Most entries are the same in the next answer, byte for byte. Only entries with a new
// hash are decoded.
type entries struct {
	seed   maphash.Seed
	owners map[uint64]owner // 64 bits and a random seed: collisions do not matter
}

func newEntries() *entries { return &entries{seed: maphash.MakeSeed()} }

// compareChecks reads an answer of /v1/health/state/STATE, and calls changed with the
// owners of all added, changed and removed entries. After an error it has not called
// changed.
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
	l.owners = latest.sums
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
	switch token, err := d.ReadToken(); {
	case err != nil:
		return err
	case token.Kind() == 'n':
		return nil
	case token.Kind() != '[':
		return errors.New("not a list")
	}
	r.sums = make(map[uint64]owner, len(r.known.owners))
	for d.PeekKind() != ']' {
		entry, err := d.ReadValue()
		if err != nil {
			return err
		}
		sum := maphash.Bytes(r.known.seed, entry)
		o, known := r.known.owners[sum]
		if !known {
			var fields struct{ Node, Service, ServiceName string } // an instance has a Service, a check a ServiceName
			if err := decode(entry, &fields); err != nil {
				return err
			}
			o = owner{cmp.Or(fields.Service, fields.ServiceName), fields.Node}
			r.added = append(r.added, o)
		}
		r.sums[sum] = o
	}
	_, err := d.ReadToken()
	return err
}
