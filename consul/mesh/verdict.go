package mesh

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A Verdict is what Consul's intentions say about connections of sluice to a service.
type Verdict string

const (
	Unknown   Verdict = "unknown"    // Consul has not answered yet
	Allowed   Verdict = "allowed"    // each connection
	Denied    Verdict = "denied"     // none
	ByRequest Verdict = "by request" // the peer decides on each request, by permissions of layer 7
)

// Limits of an answer: an intention has up to 512 KiB, as every config entry.
const (
	maxMatchBytes = 8 << 20
	maxIntentions = 10_000
)

// anyName stands for all names, in an intention.
const anyName = "*"

// intention has the fields of an intention that decide about a connection.
// https://developer.hashicorp.com/consul/api-docs/connect/intentions
type intention struct {
	SourcePeer      string
	SourcePartition string
	SourceNS        string
	SourceName      string
	DestinationName string
	Action          string
	Permissions     []json.RawMessage
	Precedence      int
}

// isFrom reports whether the intention is about connections of a source.
func (i *intention) isFrom(source Destination) bool {
	return i.SourcePeer == "" && // else it is for services of another cluster
		(i.SourceName == anyName || i.SourceName == source.Service) &&
		(i.SourceNS == anyName || unlessDefault(i.SourceNS) == source.Namespace) &&
		(i.SourcePartition == anyName || unlessDefault(i.SourcePartition) == source.Partition)
}

func (i *intention) verdict() Verdict {
	switch {
	case len(i.Permissions) > 0:
		return ByRequest
	case i.Action == "allow":
		return Allowed
	}
	return Denied
}

// decodeMatch returns the intentions in an answer to a match for one destination, sorted by
// precedence: the first about a source decides.
func decodeMatch(body []byte) ([]intention, error) {
	if len(body) > maxMatchBytes {
		return nil, fmt.Errorf("the intentions have more than %d MiB", maxMatchBytes>>20)
	}
	var matches map[string][]intention
	if err := json.Unmarshal(body, &matches); err != nil {
		return nil, fmt.Errorf("decode the intentions: %w", err)
	}
	if len(matches) != 1 {
		return nil, errors.New("the answer does not have the intentions of one destination")
	}
	for _, all := range matches {
		if len(all) > maxIntentions {
			return nil, fmt.Errorf("there are more than %d intentions", maxIntentions)
		}
		return all, nil
	}
	return nil, nil
}

// decide returns what the intentions say about a source, and which one says it. found is false if
// none does: then Consul's default holds.
func decide(all []intention, source Destination) (v Verdict, why string, found bool) {
	for _, i := range all {
		if i.isFrom(source) {
			return i.verdict(), fmt.Sprintf("the intention %s → %s (precedence %d)", i.SourceName, i.DestinationName, i.Precedence), true
		}
	}
	return Unknown, "", false
}
