package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Values of Share.By.
const (
	ByJudge    = "judge"
	ByOperator = "operator"
)

// Share is the share of a group that is used in place of the configuration's. It is immutable.
type Share struct {
	Service    string    `json:"service"`
	Group      string    `json:"group"`
	Share      float64   `json:"share"`
	Configured float64   `json:"configured"` // the share that it replaces
	By         string    `json:"by"`         // ByJudge or ByOperator
	Why        string    `json:"why,omitempty"`
	Since      time.Time `json:"since"`
	Replica    string    `json:"replica,omitempty"` // whose judge, or where the operator was
}

const sharesBelow = "shares/"

// Key returns the key of the share of a service.
func Key(service string) string { return sharesBelow + service }

// Key returns what identifies s: a later share of the service replaces it.
func (s Share) Key() string { return Key(s.Service) }

// Ends returns zero: a share does not expire.
func (s Share) Ends() time.Time { return time.Time{} }

// Same reports whether t says the same.
func (s Share) Same(t Share) bool {
	sameTime := s.Since.Equal(t.Since)
	s.Since, t.Since = time.Time{}, time.Time{}
	return sameTime && s == t
}

// Check returns what is wrong with s.
func (s Share) Check() error {
	switch {
	case s.Service == "":
		return errors.New("it lacks the service")
	case !(s.Share >= 0 && s.Share <= 1):
		return fmt.Errorf("share %v: want a number from 0 to 1", s.Share)
	}
	_, err := json.Marshal(s) // a time of +24:00 can be read, and nothing else be written with it
	return err
}

// parse returns the share in the value of a key. One without a service is about the service in its
// key.
func parse(key string, value []byte) (s Share, err error) {
	if err := json.Unmarshal(value, &s); err != nil {
		return s, fmt.Errorf("not a share: %w", err)
	}
	if s.Service == "" && len(key) > len(sharesBelow) {
		s.Service = key[len(sharesBelow):]
	}
	if err := s.Check(); err != nil {
		return s, err
	}
	if s.Key() != key {
		return s, fmt.Errorf("its share belongs to the key %s", s.Key())
	}
	return s, nil
}
