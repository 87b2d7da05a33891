package healthcheck

import (
	"fmt"
	"net/http"
	"strings"

	"sluice/observe/excerpt"
)

// IdentityHeader is the field in which an answer to a check by HTTP may say who it is from: SERVICE
// or SERVICE/ID, as in the registry. A process with several services names each, with commas
// between.
const IdentityHeader = "X-Consul-Service"

// maxSaid bounds what is shown of who answers, in bytes.
const maxSaid = 200

// OtherService begins the reason of a check that somebody else has answered: the instance has
// ended, and another program has its port now.
const OtherService = "another service answers: "

// otherService is the error of such a check.
type otherService struct{ name string }

func (e *otherService) Error() string { return OtherService + e.name }

// identify compares who answers with who is checked. An answer that does not say is from anybody.
// So is each one if the registry of the instance has no names that an application can know. A
// sidecar answers for its application.
func (t *Target) identify(header http.Header) error {
	i, said := &t.Instance, strings.Join(header.Values(IdentityHeader), ", ")
	if said == "" || i.Registered == 0 || i.Kind != "" {
		return nil
	}
	for name := range strings.SplitSeq(said, ",") {
		if name = strings.TrimSpace(name); name == i.Service || name == i.Service+"/"+i.ID {
			return nil
		}
	}
	return &otherService{fmt.Sprintf("%q", excerpt.Of(said, maxSaid))}
}
