package handover

import (
	"encoding/json"
	"fmt"
	"io"
)

// version is the version of the state's format. A process ignores a state of another version.
const version = 1

// Part is a part of the state that a process hands over to the one that replaces it: see [NewPart].
type Part struct {
	name string // in the state. The next version of sluice must know it
	save func() any
	// decode decodes a value, the zero one if text is nil, and returns what restores it.
	decode func(text json.RawMessage) (restore func(), err error)
}

// NewPart returns the part with a name, whose value save returns in the old process. restore gets
// it in the new one, or a zero value if there is none.
func NewPart[T any](name string, save func() T, restore func(T)) Part {
	decode := func(text json.RawMessage) (func(), error) {
		var v T
		if text != nil {
			if err := json.Unmarshal(text, &v); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		return func() { restore(v) }, nil
	}
	return Part{name, func() any { return save() }, decode}
}

// Save writes the state of all parts, some of which is secret.
func Save(w io.Writer, parts []Part) error {
	state := map[string]any{"version": version}
	for _, p := range parts {
		state[p.name] = p.save()
	}
	return json.NewEncoder(w).Encode(state)
}

// Restore restores all parts, in their order, from a state that Save has written; nil: from no
// state. After an error, which the state has, they are restored from no state.
func Restore(r io.Reader, parts []Part) error {
	restore, err := read(r, parts)
	if err != nil {
		restore, _ = decode(nil, parts) // without a text there is no error
	}
	for _, f := range restore {
		f()
	}
	return err
}

func read(r io.Reader, parts []Part) ([]func(), error) {
	if r == nil {
		return decode(nil, parts)
	}
	text, err := io.ReadAll(r) // to the end: Save fails if nobody takes its last byte
	if err != nil {
		return nil, err
	}
	var state map[string]json.RawMessage
	if err := json.Unmarshal(text, &state); err != nil {
		return nil, err
	}
	if v := string(state["version"]); v != fmt.Sprint(version) {
		return nil, fmt.Errorf("it has version %s, want %d", v, version)
	}
	return decode(state, parts)
}

func decode(state map[string]json.RawMessage, parts []Part) ([]func(), error) {
	var restore []func()
	for _, p := range parts {
		f, err := p.decode(state[p.name])
		if err != nil {
			return nil, err
		}
		restore = append(restore, f)
	}
	return restore, nil
}
