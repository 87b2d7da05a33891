package openapitest

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Answer is what an API answered.
type Answer struct {
	Method string
	URL    *url.URL
	Status int
	Header http.Header
	Body   []byte
}

// Check returns an error if d does not describe a: its path, method, parameters, status, format
// and every member of its body. It may be called concurrently.
func (d *Document) Check(a Answer) error {
	if err := d.describes(a); err != nil {
		return fmt.Errorf("the OpenAPI document and an answer disagree: %s %s: %d: %w\n%.2000s", a.Method, a.URL.RequestURI(), a.Status, err, a.Body)
	}
	return nil
}

func (d *Document) describes(a Answer) error {
	found, known := d.find(a.Method, a.URL.EscapedPath())
	switch {
	case a.Status >= 300 && a.Status < 400 && found == nil:
		return nil // from a path that is not clean
	case !known && a.Status == http.StatusNotFound, known && found == nil && a.Status == http.StatusMethodNotAllowed:
		return validate(d.schemas["Error"], a.Body)
	case !known:
		return errors.New("the document has no such path: add it to paths")
	case found == nil:
		return errors.New("the document has no such method of this path: add it")
	}
	for name := range a.URL.Query() {
		if !slices.Contains(found.query, name) && a.Status < 400 {
			return fmt.Errorf("%s: the document has no parameter %q of it (but %q)", found, name, found.query)
		}
	}
	answer, ok := found.responses[strconv.Itoa(a.Status)]
	if !ok {
		return fmt.Errorf("%s: the document has no such status of it: add it to responses", found)
	}
	media, _, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	schema, ok := answer.schemas[media]
	if !ok {
		return fmt.Errorf("%s: the document has no format %s of this status: add it to content", found, media)
	}
	if media != "application/json" || a.Method == http.MethodHead {
		return nil
	}
	return validate(schema, a.Body)
}

// find returns the operation of a method, and whether there is one of any method.
func (d *Document) find(method, path string) (found *Operation, known bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, o := range d.operations {
		if o.Path == path || o.names.MatchString(path) && !d.literal(path) {
			known = true
			if o.Method == method {
				found = o
			}
		}
	}
	return found, known
}

// literal reports whether a path is one of the document without parameters.
func (d *Document) literal(path string) bool {
	return slices.ContainsFunc(d.operations, func(o *Operation) bool { return o.Path == path && !strings.Contains(path, "{") })
}

func validate(schema *jsonschema.Schema, body []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("the body is not JSON: %w", err)
	}
	return schema.Validate(v)
}
