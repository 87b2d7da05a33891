package admin

import (
	"net/http"
	"time"
)

// KeySet is an element of the body of /api/keys.
type KeySet struct {
	Source   string     `json:"source"`
	Keys     []Key      `json:"keys"`
	Ignored  int        `json:"ignored"`
	Read     *time.Time `json:"read"`      // null: never
	NextRead *time.Time `json:"next_read"` // null: a file
	Failures uint64     `json:"failures"`
	Error    string     `json:"error,omitempty"` // of the last attempt
}

// Key is a public key of an issuer of tokens.
type Key struct {
	ID         string   `json:"id"`
	Algorithms []string `json:"algorithms"`
}

func (h routeHandler) keys(*http.Request) (any, error) {
	all := []KeySet{}
	for _, s := range h.Keys() {
		set := KeySet{Source: s.Source, Keys: []Key{}, Ignored: s.Ignored, Read: optionalMoment(s.Read), NextRead: optionalMoment(s.NextRead), Failures: s.Failures}
		if s.Err != nil {
			set.Error = s.Err.Error()
		}
		for _, k := range s.Keys {
			key := Key{ID: k.ID}
			for _, a := range k.Algorithms {
				key.Algorithms = append(key.Algorithms, string(a))
			}
			set.Keys = append(set.Keys, key)
		}
		all = append(all, set)
	}
	return all, nil
}
