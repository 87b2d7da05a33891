package route

import (
	"errors"

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
	// JWT, if not nil, requires a token.
	JWT *JWT
	// ForwardAuth, if not nil, asks a server about each request.
	ForwardAuth *ForwardAuth
	// Authorized drops the fields of the client in whose place peers get what JWT and ForwardAuth
	// say.
	Authorized HeaderEdits
	// CORS, if not nil, lets pages of other origins use the route. Then ResponseHeaders drops
	// CORSFields.
	CORS *CORS
	// DirectResponse, if not nil, answers the requests.
	DirectResponse *DirectResponse
	// Handler, if not nil, answers the requests.
	Handler *Handler
	// ErrorPages are the bodies of answers of sluice's own with an error, and of peers where they
	// say so.
	ErrorPages ErrorPages
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

// With returns what a, which may be nil, does with the header edits of inner in addition: those are
// the last ones of a request, and the first ones of a response.
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

// JWT requires that a request has a token of a user (RFC 7519).
type JWT struct {
	*auth.Tokens
	Place   TokenPlace
	Written HeaderEdits // drops the fields of the client with the names of Headers, and the token if peers do not get it
	Headers []ClaimHeader
}

// ClaimHeader is a field that peers get with the texts of a claim; without one they get none.
type ClaimHeader struct {
	Name  string
	Claim auth.ClaimName
}

// TokenPlace is where a token is in a request. The zero value is Authorization, with the scheme
// Bearer.
type TokenPlace struct {
	Header string // name in lower case
	Cookie string
}

// ParseTokenPlace parses "bearer", "header NAME" or "cookie NAME".
func ParseTokenPlace(text string) (p TokenPlace, err error) {
	if text == "bearer" {
		return p, nil
	}
	key, err := ParseHashKey(text)
	switch {
	case err != nil:
	case key.Source == HashHeader:
		p.Header = key.Name
	case key.Source == HashCookie:
		p.Cookie = key.Name
	default:
		err = errors.New("not a place of a token")
	}
	return p, err
}

// ForwardAuth asks a server whether a request is allowed, and what becomes of it. Names of fields
// are in lower case.
type ForwardAuth struct {
	*auth.Forward
	// Answers, if not nil, has answers that count for later requests too.
	Answers *auth.Answers
	// Copied are the names of the fields of its answer that peers get.
	Copied []string
	// ToClients are the names of the fields of an answer that allows a request, which its
	// client gets.
	ToClients []string
	// What an answer may decide, by its fields X-Sluice-Service, X-Sluice-Group and
	// X-Sluice-Path: the target of the route's Weighted, the group of its Split, and the path
	// that peers get.
	DecidesService, DecidesGroup, DecidesPath bool
	// BodyBytes is how many bytes of the body are sent to the server at most.
	BodyBytes int
}
