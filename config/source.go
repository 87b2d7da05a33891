package config

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
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

// Source is what a source of documents says at one time. A Source that is handed on does
// not change.
type Source struct {
	Name      string     `json:"name"`     // the file, or as Dynamic.Name
	Kind      string     `json:"kind"`     // as Dynamic.Kind
	Revision  string     `json:"revision"` // the source's own: the hash of files, or an index
	Documents []Document `json:"documents"`
	Pin       *Pin       `json:"pin,omitempty"` // nil: it is what the source said
}

// Pin says that a rollback has put the documents of an earlier revision in place of those of
// the source. It ends when the source says something else than it did then.
type Pin struct {
	Number uint64 `json:"number"` // of the revision that has the documents
	// Against is the hash of what the source says; "": that is not known yet.
	Against string `json:"against"`
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
