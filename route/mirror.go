package route

import (
	"slices"
	"strings"

	"sluice/balancer"
)

// Mirror sends copies of some requests of a route to another service or group, and drops
// the answers. It does not change after it is in a Table, but for Copies, and is safe for
// concurrent use.
type Mirror struct {
	Service *Service        // from MirrorService
	Group   *balancer.Group // of Service; nil: all peers
	Share   float64         // of the requests, 0 to 1
	// BodyBytes bounds the body of a request that is copied.
	BodyBytes int64
	// InFlight bounds the copies in flight, of Copies together.
	InFlight int64
	Actions  *Actions // from MirrorActions
	Copies   *Copies
}

// MirrorField is the name of the field that marks a copy. Its value is the name of the
// service that the request is for.
const MirrorField = "X-Sluice-Mirror"

// MirrorService returns s with the settings for copies: one attempt, and without a
// cookie that would be for another service's peers.
func MirrorService(s *Service) *Service {
	own := *s
	own.Retry = Retry{Attempts: 1}
	if own.Affinity != nil && own.Affinity.Cookie != "" {
		own.Affinity = nil
	}
	return &own
}

// MirrorActions returns the part of a, which may be nil, that edits the requests that peers
// get, and the mark of a copy of a request for a service.
func MirrorActions(a *Actions, service string) *Actions {
	var copied Actions
	if a != nil {
		copied = Actions{
			Authorized: a.Authorized, Path: a.Path, Host: a.Host, HostOfPeer: a.HostOfPeer,
			RequestHeaders: HeaderEdits{slices.Clone(a.RequestHeaders.Dropped), slices.Clone(a.RequestHeaders.Added)},
		}
	}
	mark := Template{parts: []templatePart{{text: service}}}
	edits := &copied.RequestHeaders
	edits.Dropped = append(edits.Dropped, strings.ToLower(MirrorField))
	edits.Added = append(edits.Added, FieldLine{Name: MirrorField, Value: mark})
	return &copied
}
