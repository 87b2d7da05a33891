package consul

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"

	"sluice/observe/excerpt"
)

// ErrFiltered is in errors about an answer that ACLs have filtered.
var ErrFiltered = errors.New("the answer is filtered by ACLs")

// statusError is an HTTP status other than 200.
type statusError struct {
	code    int
	refused bool // see Refused
	text    string
}

func (e *statusError) Error() string { return e.text }

// StatusCode returns the HTTP status in err, from Consul or a proxy in front of it, or
// 0.
func StatusCode(err error) int {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.code
	}
	status, _ := errors.AsType[api.StatusError](err)
	return status.Code
}

// Shorten returns an error of hashicorp/consul/api as a status with one line of the body,
// or as a network error without the URL.
func Shorten(err error) error {
	if status := (api.StatusError{}); errors.As(err, &status) {
		return &statusError{status.Code, refuses(status), fmt.Sprintf("%d %s (%s)", status.Code, http.StatusText(status.Code), OneLine(status.Body))}
	}
	if network := (*url.Error)(nil); errors.As(err, &network) {
		return network.Err
	}
	return err
}

// Forbidden reports whether err is an answer 403: the token is not valid, or lacks a
// permission.
func Forbidden(err error) bool { return StatusCode(err) == http.StatusForbidden }

// Denied reports whether err is an answer 4xx, from Consul or a proxy in front of it.
func Denied(err error) bool {
	code := StatusCode(err)
	return code > 0 && code < http.StatusInternalServerError
}

// Refused reports whether err concerns the query or its token, and not the health of
// Consul. A retry helps only after a change of them.
func Refused(err error) bool {
	status := (*statusError)(nil)
	return errors.As(err, &status) && status.refused || errors.Is(err, ErrFiltered)
}

// explain returns the error of an answer other than 200. permissions are the permissions that the
// query needs.
func explain(err error, permissions string) error {
	status, _ := errors.AsType[api.StatusError](err)
	var meaning string
	switch status.Code {
	case http.StatusForbidden:
		meaning = "the token is not valid, or lacks " + permissions
	case http.StatusTooManyRequests:
		meaning = "the agent limits connections or requests of this client"
	default:
		return Shorten(err)
	}
	text := fmt.Sprintf("%d %s: %s (%s)", status.Code, http.StatusText(status.Code), meaning, OneLine(status.Body))
	return &statusError{status.Code, refuses(status), text}
}

// refuses implements Refused. The answer to an invalid filter has the status 500 and an
// error of hashicorp/go-bexpr.
func refuses(status api.StatusError) bool {
	switch {
	case status.Code == http.StatusTooManyRequests:
		return false
	case status.Code < http.StatusInternalServerError:
		return true
	}
	return strings.Contains(status.Body, "boolean expression evaluator") ||
		strings.Contains(status.Body, `Selector "`) && strings.Contains(status.Body, "is not valid")
}

// maxLine is the maximum length of OneLine in bytes.
const maxLine = 200

// OneLine returns the start of a text from Consul, up to 200 bytes, without line
// breaks.
func OneLine(text string) string {
	text = text[:min(len(text), 16*maxLine)] // it may be very long
	return excerpt.Of(strings.Join(strings.Fields(text), " "), maxLine)
}
