package route

import (
	"sluice/balancer"
	"sluice/route/auth"
	"sluice/route/compression"
)

// Actions are what a route does with its requests and their responses, besides sending
// the requests to a service. They do not change after they are in a Table, and are safe
// for concurrent use. The zero value does nothing.
type Actions struct {
	// Access, if not nil, restricts the clients.
	Access *Access
	// ClientCertificate: only clients with a certificate that their listener has verified
	// may use the route.
	ClientCertificate bool
	// CertificateNames are names, of which that certificate must have one; empty: any.
	CertificateNames []CertificateName
	// RateLimit, if not nil, limits the rate of requests.
	RateLimit *RateLimit
	// BasicAuth, if not nil, requires a password.
	BasicAuth *BasicAuth
	// ForwardAuth, if not nil, asks a server about each request.
	ForwardAuth *ForwardAuth
	// Redirect, if not nil, answers the requests. A request whose URL is already the
	// target goes to the service.
	Redirect *Redirect
	// Path edits the path that peers get.
	Path PathEdits
	// Host is the Host that peers get. "": the client's.
	Host string
	// HostOfPeer: peers get their own address as Host.
	HostOfPeer bool
	// RequestHeaders edits the requests that peers get, with the fields that sluice
	// writes.
	RequestHeaders HeaderEdits
	// ResponseHeaders edits the final responses of peers, not sluice's own answers.
	ResponseHeaders HeaderEdits
	// Compress, if not nil, compresses the responses of peers.
	Compress *compression.Settings
	// BodyLimit bounds the bytes of a request's body. 0: no limit.
	BodyLimit int64
	// Criticality says whether requests are among the first that an overloaded service refuses.
	Criticality balancer.Criticality
}

// With returns what a, which may be nil, does with the header edits of inner in addition: those are the last ones of a
// request, and the first ones of a response.
func (a *Actions) With(inner *Actions) *Actions {
	if inner == nil || inner.RequestHeaders.Empty() && inner.ResponseHeaders.Empty() {
		return a
	}
	var both Actions
	if a != nil {
		both = *a
	}
	both.RequestHeaders = both.RequestHeaders.Then(inner.RequestHeaders)
	both.ResponseHeaders = inner.ResponseHeaders.Then(both.ResponseHeaders)
	return &both
}

// BasicAuth requires that a request has the password of a user (RFC 7617).
type BasicAuth struct {
	*auth.Users
	// Realm is what the password is for, for people, without quotes and backslashes.
	Realm string
}

// ForwardAuth asks a server whether a request is allowed.
type ForwardAuth struct {
	*auth.Forward
	// Copied drops the fields of the client that peers get from the server's answer.
	Copied HeaderEdits
}
