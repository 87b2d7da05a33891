package consul

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// fact is what an answer says of an entry. Its slices are valid until the next one.
type fact struct {
	node, id, service, status []byte
	created, modified         uint64
}

// form says where an answer lists entries, and what their fields are called.
type form struct {
	array                     string // the field that has the list, in quotes; "": the answer is one
	node, id, service, status string // fields of an entry, in quotes
	of                        []byte // the node, if it is not in an entry
}

// checksForm is that of /v1/health/state/STATE.
var checksForm = form{node: `"Node"`, id: `"CheckID"`, service: `"ServiceName"`, status: `"Status"`}

// nodeServicesForm is that of /v1/catalog/node-services/NODE.
func nodeServicesForm(node string) form {
	return form{array: `"Services"`, id: `"ID"`, service: `"Service"`, of: []byte(node)}
}

// begin returns where in an answer the list's first entry, or its end, may
// stand. There is no list of a node that is not there; null in its place is an
// error where Consul never sends that.
func (f *form) begin(answer []byte) (at int, listed bool, err error) {
	d := newDecoder(bytes.NewBuffer(answer))
	if f.array == "" {
		err := expect(d, '[')
		return int(d.InputOffset()), true, err
	}
	err = readObject(d, func(name []byte) error {
		if listed || string(name) != f.array || d.PeekKind() == 'n' {
			return d.SkipValue()
		}
		if err := expect(d, '['); err != nil {
			return err
		}
		at, listed = int(d.InputOffset()), true
		return errFound
	})
	if listed && errors.Is(err, errFound) {
		err = nil
	}
	return at, listed, err
}

var errFound = errors.New("found")

// wellFormed returns an error unless an answer is JSON without its list's
// entries, which stand between two places.
func wellFormed(answer []byte, begin, end int) error {
	outline := jsontext.Value(slices.Concat(answer[:begin], answer[end:]))
	if !outline.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) {
		return errors.New("decode the answer: it is damaged around its list")
	}
	return nil
}

// factReader reads entries. It is not safe for concurrent use.
type factReader struct {
	form                      form
	decoder                   *jsontext.Decoder
	node, id, service, status []byte // buffers
}

func newFactReader(f form) *factReader {
	return &factReader{form: f, decoder: newDecoder(bytes.NewBuffer(nil))}
}

// read reads the entry that b begins with, and returns its length in bytes.
func (r *factReader) read(b []byte) (f fact, length int, err error) {
	d := r.decoder
	d.Reset(bytes.NewBuffer(b), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	f.node = r.form.of
	err = readObject(d, func(name []byte) (err error) {
		switch string(name) {
		case r.form.node:
			r.node, err = readString(d, r.node[:0])
			f.node = r.node
		case r.form.id:
			r.id, err = readString(d, r.id[:0])
			f.id = r.id
		case r.form.service:
			r.service, err = readString(d, r.service[:0])
			f.service = r.service
		case r.form.status:
			r.status, err = readString(d, r.status[:0])
			f.status = r.status
		case `"CreateIndex"`:
			f.created, err = readUint(d)
		case `"ModifyIndex"`:
			f.modified, err = readUint(d)
		default:
			err = d.SkipValue()
		}
		return err
	})
	return f, int(d.InputOffset()), err
}

func newDecoder(r io.Reader) *jsontext.Decoder {
	return jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
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
