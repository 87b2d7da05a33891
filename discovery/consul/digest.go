package consul

import (
	"errors"
	"fmt"
	"hash/maphash"
)

// record is what an overview keeps of an entry of the catalog: which service it
// belongs to, and when it last changed.
type record struct {
	service  string // "": the entry belongs to its node
	status   string // of a check
	modified uint64
	seen     uint64 // the last round that listed it
	place    int    // in the latest answer
}

// table holds the entries that an answer listed, to compare with the next
// answer. It is not safe for concurrent use.
//
// Nearly all of an answer is what the one before was, byte for byte and in the
// same order. So a table keeps a sum over the bytes of each entry, looks whether
// the next entry is the one that came next last time, and reads it only if not:
// that takes a tenth of the time.
type table struct {
	reader *factReader
	nodes  map[string]map[string]*record // by node, then by the entry's id
	size   int                           // entries
	round  uint64
	listed int               // entries that the latest round has listed
	names  map[string]string // one copy of each name of a service, and of each status

	seed      maphash.Seed
	stretches []stretch // of the latest answer
	spare     []stretch // of the one before, for its memory
}

// stretch is the part of an answer from the end of an entry to that of the next
// one.
type stretch struct {
	sum    uint64 // of 64 bits and with a random seed: two different ones have it in common once in an age
	length int
	record *record
}

func newTable(f form) *table {
	return &table{
		reader: newFactReader(f),
		nodes:  make(map[string]map[string]*record),
		names:  make(map[string]string),
		seed:   maphash.MakeSeed(),
	}
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

// compare reads an answer, and tells changed which services and nodes have
// entries that are new, changed or gone. After an error changed may not have been
// told everything.
func (t *table) compare(answer []byte, changed func(change)) error {
	t.round++
	t.listed = 0
	old, stretches := t.stretches, t.spare[:0]
	t.stretches, t.spare = nil, nil // until all is well
	begin, listed, err := t.reader.form.begin(answer)
	if err != nil {
		return err
	}
	end := begin
	if listed {
		if stretches, end, err = t.walk(answer, begin, old, stretches, changed); err != nil {
			return err
		}
	}
	if err := wellFormed(answer, begin, end); err != nil {
		return err
	}
	t.stretches, t.spare = stretches, old
	if t.listed == t.size {
		return nil
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

// walk goes through the entries of an answer from a place on, and returns where
// they end. It appends their stretches to stretches.
func (t *table) walk(answer []byte, at int, old, stretches []stretch, changed func(change)) ([]stretch, int, error) {
	for next := 0; ; {
		// The first entry alone has no comma before it.
		if next < len(old) && (next == 0) == (len(stretches) == 0) {
			s := old[next]
			if s.length <= len(answer)-at && maphash.Bytes(t.seed, answer[at:at+s.length]) == s.sum {
				t.see(s.record)
				s.record.place = len(stretches)
				stretches = append(stretches, s)
				at += s.length
				next++
				continue
			}
		}
		begin, more, err := nextEntry(answer, at, len(stretches) == 0)
		if err != nil || !more {
			return stretches, begin, err
		}
		f, length, err := t.reader.read(answer[begin:])
		if err != nil {
			return nil, 0, err
		}
		r, known := t.note(f, changed)
		if known {
			next = r.place + 1
		}
		r.place = len(stretches)
		end := begin + length
		stretches = append(stretches, stretch{maphash.Bytes(t.seed, answer[at:end]), end - at, r})
		at = end
	}
}

// nextEntry returns where the next entry begins, or that there is none and where
// the list ends.
func nextEntry(answer []byte, at int, first bool) (begin int, more bool, err error) {
	comma := first
	for ; at < len(answer); at++ {
		switch c := answer[at]; {
		case c == ' ' || c == '\n' || c == '\r' || c == '\t':
		case c == ',' && !comma:
			comma = true
		case c == '{' && comma:
			return at, true, nil
		case c == ']' && (first || !comma):
			return at, false, nil
		default:
			return 0, false, fmt.Errorf("decode the answer: %q where an entry was expected", c)
		}
	}
	return 0, false, errors.New("decode the answer: it ends within a list")
}

// note takes note of an entry, and reports whether the answer before had it.
func (t *table) note(f fact, changed func(change)) (r *record, known bool) {
	entries := t.nodes[string(f.node)]
	if entries == nil {
		entries = make(map[string]*record)
		t.nodes[string(f.node)] = entries
	}
	r = entries[string(f.id)]
	if r == nil {
		r = &record{service: t.name(f.service), status: t.name(f.status), modified: f.modified}
		t.see(r)
		entries[string(f.id)] = r
		t.size++
		changed(change{r.service, string(f.node), f.created, f.modified, changeCame})
		return r, false
	}
	t.see(r)
	sameService, sameStatus := r.service == string(f.service), r.status == string(f.status)
	if r.modified == f.modified && sameService && sameStatus {
		return r, true
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
	return r, true
}

// see takes note that the answer lists r, perhaps not for the first time.
func (t *table) see(r *record) {
	if r.seen != t.round {
		r.seen = t.round
		t.listed++
	}
}

func (t *table) name(b []byte) string {
	name, ok := t.names[string(b)]
	if !ok {
		name = string(b)
		t.names[name] = name
	}
	return name
}
