package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"sluice/config/units"
	"sluice/discovery/locality"
	"sluice/route/places"
)

// Limits of a Forward.
const (
	maxAnswerHead  = 16 << 10
	maxAnswerBody  = 64 << 10
	maxConnections = 256
	maxPerBlock    = maxConnections / 8 // questions about the requests of one address block
	maxIdle        = 64
	idleTimeout    = 30 * time.Second
)

// A Forward asks a server whether a request is allowed. It is safe for concurrent use.
type Forward struct {
	url     *url.URL
	timeout time.Duration
	client  *http.Client
	places  *places.Places // of questions
}

// An Answer is what the authentication server has answered.
type Answer struct {
	Status int // 200 to 599
	Header http.Header
	Body   []byte
}

// Allows reports whether the request is allowed.
func (a *Answer) Allows() bool { return a.Status < 300 }

// NewForward returns a Forward to a URL for HTTP or HTTPS; if it is none, each question fails.
// timeout bounds each question. control is of who has named the URL.
func NewForward(to units.Location, timeout time.Duration, control locality.Control) *Forward {
	at, err := url.Parse(to.Reveal())
	if err != nil {
		at = new(url.URL)
	}
	return &Forward{at, timeout, clientOf(control, timeout), places.New(maxConnections, maxPerBlock)}
}

// clientOf returns a client that follows no redirects. timeout bounds how long a connection takes
// to open: net/http opens it also when the question has ended, and counts it as one of
// maxConnections.
func clientOf(control locality.Control, timeout time.Duration) *http.Client {
	dialer := locality.NewDialer(control, timeout)
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    timeout,
			DisableCompression:     true,
			MaxConnsPerHost:        maxConnections,
			MaxIdleConnsPerHost:    maxIdle,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxAnswerHead,
		},
	}
}

// send sends a request. Its error does not have the URL, unlike that of net/http: the URL may have
// credentials.
func send(client *http.Client, request *http.Request) (*http.Response, error) {
	response, err := client.Do(request)
	if whole, ok := errors.AsType[*url.Error](err); ok {
		err = whole.Err
	}
	return response, err
}

// Timeout bounds the time of Ask.
func (f *Forward) Timeout() time.Duration { return f.timeout }

// Ask sends a GET request with that header, about a request of client, and returns the answer. With
// a body, which may be empty and not nil, it is a POST request. An answer that could not be passed
// on to a client is an error.
func (f *Forward) Ask(ctx context.Context, client places.Block, header http.Header, body []byte) (*Answer, error) {
	if err := f.places.Take(client, func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }); err != nil {
		return nil, fmt.Errorf("forward auth: too many questions wait for their answers: %w", err)
	}
	defer f.places.Give(client)
	request := (&http.Request{Method: http.MethodGet, URL: f.url, Header: header}).WithContext(ctx)
	if body != nil {
		request.Method, request.ContentLength = http.MethodPost, int64(len(body))
		request.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		request.Body, _ = request.GetBody()
		if _, has := header["Idempotency-Key"]; !has {
			// net/http may send the question again, and does not send this field.
			header["Idempotency-Key"] = nil
		}
	}
	response, err := send(f.client, request)
	if err != nil {
		return nil, fmt.Errorf("forward auth: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode > 599 || response.StatusCode == http.StatusNotModified {
		return nil, fmt.Errorf("forward auth: status %d", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("forward auth: %w", err)
	case len(text) > maxAnswerBody:
		return nil, errors.New("forward auth: the body of the answer is too long")
	}
	return &Answer{response.StatusCode, response.Header, text}, nil
}

// Close closes the idle connections.
func (f *Forward) Close() { f.client.CloseIdleConnections() }
