package events

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sluice/observe/excerpt"
)

// Event is one thing that happened. It is immutable.
type Event struct {
	ID       ID        `json:"id,omitzero"` // zero for KindSkipped
	Time     time.Time `json:"time"`
	Kind     Kind      `json:"kind"`
	Level    Level     `json:"level"`
	Service  string    `json:"service,omitempty"`
	Peer     string    `json:"peer,omitempty"` // its id in the registry
	Address  string    `json:"address,omitempty"`
	Node     string    `json:"node,omitempty"`
	Revision uint64    `json:"revision,omitempty"` // of the configuration
	Text     string    `json:"text"`               // one sentence for people: what happened, and why
}

// Level says whether people should look.
type Level string

const (
	// Info is the level of events in normal operation.
	Info Level = "info"
	// Warning is the level of events that cost requests, capacity or safety.
	Warning Level = "warning"
)

// Because returns why as the end of a sentence of an event; "" if why is empty.
func Because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

// maxText bounds each text of an event, in bytes, and so the memory of a feed. The output
// of a check may be longer.
const maxText = 400

// bounded returns e with texts that it shortens to maxText. They share no memory with
// longer ones.
func bounded(e Event) Event {
	for _, text := range []*string{&e.Service, &e.Peer, &e.Address, &e.Node, &e.Text} {
		*text = excerpt.Of(*text, maxText)
	}
	return e
}

// ID is the place of an event in the feed of a process. Its text is "START-NUMBER".
type ID struct {
	Start  uint64 // when the process started, in milliseconds since 1970
	Number uint64 // from 1, without a gap
}

func (i ID) String() string {
	return strconv.FormatUint(i.Start, 10) + "-" + strconv.FormatUint(i.Number, 10)
}

// MarshalText implements encoding.TextMarshaler.
func (i ID) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *ID) UnmarshalText(text []byte) (err error) {
	*i, err = ParseID(string(text))
	return err
}

// ParseID is the inverse of [ID.String].
func ParseID(text string) (i ID, err error) {
	start, number, found := strings.Cut(text, "-")
	if i.Start, err = strconv.ParseUint(start, 10, 64); err == nil && found {
		i.Number, err = strconv.ParseUint(number, 10, 64)
	}
	if err != nil || !found {
		return ID{}, fmt.Errorf("event id %q: want START-NUMBER", text)
	}
	return i, nil
}
