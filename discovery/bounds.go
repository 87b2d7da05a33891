package discovery

import (
	"cmp"
	"fmt"
	"slices"

	"sluice/observe/excerpt"
)

// The most that an instance may have of what others have written: its parts are labels of metrics,
// words of the log and of answers of the API, as often as it is named there.
const (
	maxName  = 512      // octets of each name: service, id, node, address, …
	maxTexts = 64 << 10 // octets of all tags and meta, with perText for each
	perText  = 16

	shownID = 100 // octets of an id in an Invalid
)

// Excess says what i has too much of, so that a [Watcher] does not believe it; "": nothing.
func (i *Instance) Excess() string {
	for _, name := range []struct{ what, text string }{
		{"service", i.Service}, {"id", i.ID}, {"node", i.Node}, {"address", i.Address}, {"socket", i.Socket}, {"address of its node", i.NodeAddress},
		{"address tag", i.AddressTag}, {"data center", i.Datacenter}, {"server name", i.ServerName}, {"identity", i.Identity}, {"peering", i.Peer},
		{"target", i.Target}, {"kind", i.Kind}, {"detail", i.Detail}, {"failure", i.Failed},
	} {
		if n := len(name.text); n > maxName {
			return fmt.Sprintf("its %s has %d octets, the limit is %d", name.what, n, maxName)
		}
	}
	n := 0
	for _, tag := range i.Tags {
		n += len(tag) + perText
	}
	for key, value := range i.Meta {
		n += len(key) + len(value) + perText
	}
	if n > maxTexts {
		return fmt.Sprintf("its tags and meta have %d octets, with %d for each, the limit is %d", n, perText, maxTexts)
	}
	return ""
}

// withinBounds returns the instances of set that exceed nothing, and invalid with the others. An
// instance is never cut: it would be another one. Neither set nor invalid is modified.
func withinBounds(set []Instance, invalid []Invalid) ([]Instance, []Invalid) {
	exceeds := func(i Instance) bool { return i.Excess() != "" }
	if !slices.ContainsFunc(set, exceeds) {
		return set, invalid
	}
	invalid = slices.Clone(invalid)
	for _, i := range set {
		if why := i.Excess(); why != "" {
			invalid = append(invalid, Invalid{Key: excerpt.Of(i.ID, shownID), Reason: why, tooLong: true})
		}
	}
	SortInvalid(invalid)
	return slices.DeleteFunc(slices.Clone(set), exceeds), invalid
}

// SortInvalid sorts as [Report] says.
func SortInvalid(list []Invalid) {
	slices.SortFunc(list, func(a, b Invalid) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Reason, b.Reason)) })
}
