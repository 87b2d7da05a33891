package consul

import (
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"
)

// record is what an overview keeps of an entry of the catalog: which service it
// belongs to, and when it last changed.
type record struct {
	service  string // "": the entry belongs to its node
	status   string // of a check
	modified uint64
	seen     uint64 // the last round that listed it
}

// table holds the entries that an answer listed, to compare with the next
// answer. It is not safe for concurrent use.
type table struct {
	nodes map[string]map[string]*record // by node, then by the entry's id
	size  int                           // entries
	round uint64
	names map[string]string // one copy of each name of a service, and of each status
}

func newTable() *table {
	return &table{nodes: make(map[string]map[string]*record), names: make(map[string]string)}
}

// fact is what an answer says of an entry. Its slices are valid until the next one.
type fact struct {
	node, id, service, status []byte
	created, modified         uint64
}

// change is what differs between two answers.
type change struct {
	service, node     string
	created, modified uint64 // as Consul's CreateIndex and ModifyIndex
	kind              changeKind
}

// changeKind is how an entry differs.
type changeKind uint8

const (
	changeCame changeKind = iota
	changeWent
	changeMatters // another service or status
	// changeNoise: the entry was modified, but neither its service nor its status.
	// It may be the output of a check.
	changeNoise
)

// compare reads an answer with list, which calls its argument for each entry,
// and tells changed which services and nodes have entries that are new, changed
// or gone. After an error changed may not have been told everything.
func (t *table) compare(list func(each func(fact)) error, changed func(change)) error {
	t.round++
	err := list(func(f fact) { t.note(f, changed) })
	if err != nil {
		return err
	}
	for node, entries := range t.nodes {
		for id, r := range entries {
			if r.seen != t.round {
				changed(change{service: r.service, node: node, kind: changeWent})
				delete(entries, id)
				t.size--
			}
		}
		if len(entries) == 0 {
			delete(t.nodes, node)
		}
	}
	return nil
}

func (t *table) note(f fact, changed func(change)) {
	entries := t.nodes[string(f.node)]
	if entries == nil {
		entries = make(map[string]*record)
		t.nodes[string(f.node)] = entries
	}
	r := entries[string(f.id)]
	if r == nil {
		r = &record{service: t.name(f.service), status: t.name(f.status), modified: f.modified, seen: t.round}
		entries[string(f.id)] = r
		t.size++
		changed(change{r.service, string(f.node), f.created, f.modified, changeCame})
		return
	}
	r.seen = t.round
	sameService, sameStatus := r.service == string(f.service), r.status == string(f.status)
	if r.modified == f.modified && sameService && sameStatus {
		return
	}
	r.modified = f.modified
	if !sameService {
		changed(change{r.service, string(f.node), f.created, f.modified, changeMatters}) // the id was another service's
		r.service = t.name(f.service)
	}
	if !sameStatus {
		r.status = t.name(f.status)
	}
	kind := changeMatters
	if sameService && sameStatus {
		kind = changeNoise
	}
	changed(change{r.service, string(f.node), f.created, f.modified, kind})
}

func (t *table) name(b []byte) string {
	name, ok := t.names[string(b)]
	if !ok {
		name = string(b)
		t.names[name] = name
	}
	return name
}

// readChecks reads an answer of /v1/health/state/STATE.
func readChecks(r io.Reader, each func(fact)) error {
	return readFacts(newDecoder(r), factFields{node: `"Node"`, id: `"CheckID"`, service: `"ServiceName"`, status: `"Status"`}, nil, each)
}

// readNodeServices reads an answer of /v1/catalog/node-services/NODE.
func readNodeServices(r io.Reader, node string, each func(fact)) error {
	d := newDecoder(r)
	return readObject(d, func(name []byte) error {
		// A node that is not there has null.
		if string(name) != `"Services"` || d.PeekKind() == 'n' {
			return d.SkipValue()
		}
		return readFacts(d, factFields{id: `"ID"`, service: `"Service"`}, []byte(node), each)
	})
}

// readNodes reads the names from an answer of /v1/catalog/nodes.
func readNodes(r io.Reader, each func(fact)) error {
	return readFacts(newDecoder(r), factFields{node: `"Node"`}, nil, each)
}

// factFields are the names of the fields in an answer, as they stand there.
type factFields struct{ node, id, service, status string }

func newDecoder(r io.Reader) *jsontext.Decoder {
	return jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
}

// readFacts reads an array of objects. null, which Consul never sends for an
// empty one, is an error.
func readFacts(d *jsontext.Decoder, fields factFields, node []byte, each func(fact)) error {
	if err := expect(d, '['); err != nil {
		return err
	}
	var nodeBuffer, idBuffer, serviceBuffer, statusBuffer []byte
	for d.PeekKind() == '{' {
		e := fact{node: node}
		err := readObject(d, func(name []byte) (err error) {
			switch string(name) {
			case fields.node:
				nodeBuffer, err = readString(d, nodeBuffer[:0])
				e.node = nodeBuffer
			case fields.id:
				idBuffer, err = readString(d, idBuffer[:0])
				e.id = idBuffer
			case fields.service:
				serviceBuffer, err = readString(d, serviceBuffer[:0])
				e.service = serviceBuffer
			case fields.status:
				statusBuffer, err = readString(d, statusBuffer[:0])
				e.status = statusBuffer
			case `"CreateIndex"`:
				e.created, err = readUint(d)
			case `"ModifyIndex"`:
				e.modified, err = readUint(d)
			default:
				err = d.SkipValue()
			}
			return err
		})
		if err != nil {
			return err
		}
		each(e)
	}
	return expect(d, ']')
}

// readObject reads an object; field reads the value of the field whose name, in
// quotes, it is given. The name is valid until it begins.
func readObject(d *jsontext.Decoder, field func(name []byte) error) error {
	if err := expect(d, '{'); err != nil {
		return err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := field(name); err != nil {
			return err
		}
	}
	return expect(d, '}')
}

func expect(d *jsontext.Decoder, kind jsontext.Kind) error {
	token, err := d.ReadToken()
	if err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	if token.Kind() != kind {
		return fmt.Errorf("decode the answer: %v where %v was expected", token.Kind(), kind)
	}
	return nil
}

func readString(d *jsontext.Decoder, to []byte) ([]byte, error) {
	value, err := d.ReadValue()
	if err != nil {
		return nil, err
	}
	return jsontext.AppendUnquote(to, value)
}

func readUint(d *jsontext.Decoder) (uint64, error) {
	token, err := d.ReadToken()
	if err != nil {
		return 0, err
	}
	if token.Kind() != '0' {
		return 0, fmt.Errorf("decode the answer: %v where a number was expected", token.Kind())
	}
	return token.Uint()
}
