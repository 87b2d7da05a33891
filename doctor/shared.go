package doctor

import (
	"cmp"
	"fmt"
	"slices"
)

// sharedFindings are about addresses that instances of several services have. A process may have
// several services, but then it mostly has them wherever it runs. If only one of many instances
// shares an address with a later registration, it may be a former process, whose port was reused.
func (f *Facts) sharedFindings() []Finding {
	at := make(map[processAddress][]Instance) // service is empty; in order of registration
	for _, i := range f.Instances {
		if i.Serving() && i.Unusable == "" && !i.Sidecar {
			p := f.processAddressOf(i)
			p.service = ""
			at[p] = append(at[p], i)
		}
	}
	together := make(map[[2]string]int) // how many addresses two services share
	serving := make(map[string]int)     // how many a service has
	for _, group := range at {
		names := make(map[string]bool)
		for _, i := range group {
			names[i.Service] = true
		}
		for a := range names {
			serving[a]++
			for b := range names {
				together[[2]string{a, b}]++
			}
		}
	}
	var findings []Finding
	for _, group := range at {
		slices.SortFunc(group, func(a, b Instance) int {
			return cmp.Or(cmp.Compare(a.Modified, b.Modified), cmp.Compare(a.ID, b.ID))
		})
		last := group[len(group)-1]
		for _, i := range group {
			if i.Service == last.Service || together[[2]string{i.Service, last.Service}] == serving[i.Service] {
				continue
			}
			findings = append(findings, Finding{
				Severity: SeverityNotice, Code: CodeSharedAddress,
				Seen: fmt.Sprintf("%s %s on node %s was registered later with the same address, and not with the other ones of %s", last.Service, last.ID, last.Node, i.Service),
				Why:  "If its process is gone, and the port belongs to another program now, that one gets its requests: their checks cannot tell.",
				Do:   "Nothing, if one process has both services. Else deregister the older one.",
			}.about(i))
		}
	}
	return findings
}
