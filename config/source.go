package config

import (
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"strconv"
	"time"
)

// Document is a text of a source. It contains services and routes, or the whole
// configuration if it is the configuration file.
type Document struct {
	// Name is the place of the text in errors: the path of a file, or "consul_kv:KEY".
	Name string `json:"name"`
	// Short is the key below the source's prefix, such as services/NAME, of a text that
	// is a value and no document. Empty for documents.
	Short string `json:"short,omitempty"`
	Text  string `json:"text"`
}

// Source is the state of a source of documents at one time: all that another process needs to go
// on with it. It is a part of a revision, so a restart, an upgrade and a reload take it over in the
// same way. A Source that is handed on does not change.
type Source struct {
	Name      string     `json:"name"`             // the file, or as Dynamic.Name
	Kind      string     `json:"kind"`             // as Dynamic.Kind
	Revision  string     `json:"revision"`         // the source's own: the hash of files, or an index
	Origin    string     `json:"origin,omitempty"` // what Revision counts the changes of: the id of a cluster of etcd
	Documents []Document `json:"documents"`        // the documents in use
	Lost      []Lost     `json:"lost,omitempty"`   // the ones among Documents that the source has lost: see discovery.Stay
	Pin       *Pin       `json:"pin,omitempty"`    // nil: Documents are what the source said
}

// Lost is a document that a source has lost, and that stays in use for some time.
type Lost struct {
	Document string    `json:"document"` // its name
	Until    time.Time `json:"until"`
}

// Pin says that a rollback has put the documents of an earlier revision in place of the documents
// of the source. It ends when the source says something else than it did then.
type Pin struct {
	Number uint64 `json:"number"` // of the revision that has the documents
	// Against is the hash of what the source has; "": it is not known yet.
	Against string `json:"against"`
	// Said is what the source has; nil: it is not known yet, or to an earlier version of sluice.
	Said *Source `json:"said,omitempty"`
}

// LastSaid returns what the source itself said last, whether it is in use or not; without
// documents if that is not known.
func (s Source) LastSaid() Source {
	switch {
	case s.Pin == nil:
		return s
	case s.Pin.Said != nil:
		return *s.Pin.Said
	}
	return Source{Name: s.Name, Kind: s.Kind}
}

// pinned returns s with a pin against what the source has now.
func (s Source) pinned(number uint64, says Source) Source {
	s.Lost, s.Pin = nil, &Pin{Number: number, Against: says.Hash(), Said: &says}
	return s
}

// goesOnAs reports whether another process goes on with s as with t: they differ in their revisions
// at most, which an outage changes too.
func (s Source) goesOnAs(t Source) bool {
	for _, x := range []*Source{&s, &t} {
		if x.Revision = ""; x.Pin != nil && x.Pin.Said != nil {
			pin, said := *x.Pin, *x.Pin.Said
			said.Revision = ""
			pin.Said, x.Pin = &said, &pin
		}
	}
	return reflect.DeepEqual(s, t)
}

// KindFile is the kind of files, of the configuration file and of dynamic ones.
const KindFile = "file"

// Hash returns the hash of the documents, in hexadecimal.
func (s Source) Hash() string {
	h := sha256.New()
	for _, d := range s.Documents {
		for _, text := range []string{d.Name, d.Short, d.Text} {
			h.Write(strconv.AppendInt(nil, int64(len(text)), 10))
			h.Write([]byte{':'})
			h.Write([]byte(text))
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:hashBytes])
}

// FileSource returns the source for the text of the configuration file.
func (in Input) FileSource(text string) Source {
	return Source{
		Name: in.Source(), Kind: KindFile, Revision: hashOf([]byte(text)),
		Documents: []Document{{Name: in.Source(), Text: text}},
	}
}
