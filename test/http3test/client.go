// Package http3test is a client of HTTP/3 for tests.
package http3test

import (
	"errors"
	"net/http"
	"strings"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// A Client sends requests with HTTP/3, and repeats what no server has got or what one has rejected,
// as browsers do. It is safe for concurrent use.
type Client struct{ http3.Transport }

func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.Transport.RoundTrip(r)
	for isUnsent(err) && r.Context().Err() == nil {
		if r, err = Again(r, err); err == nil {
			response, err = c.Transport.RoundTrip(r)
		}
	}
	return response, err
}

// isUnsent reports whether no server has served a request with this outcome. http3.Transport
// repeats some of those, but not twice. If it closes a connection as it was told to go away, it may
// have just begun a request on it.
func isUnsent(err error) bool {
	fault, end := (*http3.Error)(nil), (*quic.ApplicationError)(nil)
	switch {
	case err == nil:
		return false
	case errors.As(err, &end) && end.ErrorCode == quic.ApplicationErrorCode(http3.ErrCodeNoError):
		return !end.Remote || strings.HasPrefix(err.Error(), "http3: conn unusable")
	case errors.As(err, &fault):
		return fault.ErrorCode == http3.ErrCodeRequestRejected || fault.ErrorCode == http3.ErrCodeNoError && !fault.Remote
	}
	return strings.Contains(err.Error(), "connection in graceful shutdown")
}

// Again returns a request with the body as at first, or err if there is none.
func Again(r *http.Request, err error) (*http.Request, error) {
	again := *r
	switch {
	case r.Body == nil || r.Body == http.NoBody:
		return &again, nil
	case r.GetBody == nil:
		return r, errors.Join(errors.New("the body cannot be read again"), err)
	}
	again.Body, err = r.GetBody()
	return &again, err
}
