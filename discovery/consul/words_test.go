package consul

import (
	"slices"
	"strings"

	"sluice/discovery"
)

// parseSet makes a set of words such as "a", "b:critical", "c:maintenance" and
// "d:unchecked".
func parseSet(words string) []discovery.Instance {
	var set []discovery.Instance
	for n, word := range strings.Fields(words) {
		id, status, _ := strings.Cut(word, ":")
		i := discovery.Instance{Service: "star", ID: id, Node: "n", Address: "10.0.0.1", Port: 1000 + int(id[0]), Weight: 1}
		switch status {
		case "critical", "unchecked":
			i.Status, i.Weight, i.Unchecked = discovery.StatusCritical, 0, status == "unchecked"
		case "maintenance":
			i.Status, i.Weight = discovery.StatusMaintenance, 0
		case "moved":
			i.Port = 81 + n
		case "at-a":
			i.Port = 1000 + 'a'
		}
		set = append(set, i)
	}
	return set
}

// formatSet is the inverse of parseSet. What is on probation has a "?".
func formatSet(set []discovery.Instance) string {
	var words []string
	for _, i := range set {
		word := i.ID
		if i.Status != discovery.StatusPassing {
			word += ":" + i.Status.String()
		}
		if !i.Probation.IsZero() {
			word += "?"
		}
		words = append(words, word)
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}
