package openapitest

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/test/verify"
)

const small = `
openapi: 3.1.1
info: { title: A test, version: "1" }
security: [{ token: [] }]
paths:
  /things/{id}:
    get:
      operationId: thing
      summary: A thing
      parameters:
        - { name: id, in: path, required: true, description: Its id., schema: { type: string } }
        - { name: all, in: query, description: All of it., schema: { type: boolean } }
      responses:
        '200':
          description: The thing.
          content: { application/json: { schema: { $ref: '#/components/schemas/Thing' } } }
        '404':
          description: There is none.
          content: { application/json: { schema: { $ref: '#/components/schemas/Error' } } }
  /things/first:
    post:
      operationId: first
      summary: Make the first thing
      security: []
      responses:
        '200':
          description: It is made.
          content: { application/json: { schema: { type: array, items: { $ref: '#/components/schemas/Thing' } } } }
components:
  securitySchemes: { token: { type: http, scheme: bearer } }
  schemas:
    Error: { type: object, description: Why not., required: [error], properties: { error: { type: string, description: For people. } } }
    Part: { type: object, description: A part., required: [size], properties: { size: { type: integer, description: Its size. } } }
    Thing:
      description: A part with a name.
      allOf: [{ $ref: '#/components/schemas/Part' }]
      type: object
      required: [name, made, part]
      properties:
        name: { type: string, description: Its name. }
        made: { type: string, format: date-time, description: When. }
        note: { type: string, description: A note. }
        part: { description: One more., oneOf: [{ $ref: '#/components/schemas/Part' }, { type: 'null' }] }
`

func parse(t *testing.T, text string) *Document {
	t.Helper()
	d, err := Parse([]byte(text))
	verify.NoError(t, err)
	return d
}

func TestInvalidDocuments(t *testing.T) {
	parse(t, small)
	for _, test := range []struct{ old, new, want string }{
		{"info: { title: A test, version: \"1\" }", "", "info"},
		{"info: { title: A test, version: \"1\" }", "info: { title: A test }", "version"},
		{"description: Its id., ", "", "its parameter id has no description"},
		{"/things/{id}", "/things/{name}", `its path has the parameters ["name"], and it describes ["id"]`},
		{"operationId: first", "operationId: thing", "an operationId of its own"},
		{"description: A part., ", "", "the schema Part has no description"},
		{", description: Its size. ", "", "the member size of the schema Part has no description"},
		{"description: Its size.", "description: Its size, in bytes.", `unknown keyword "in bytes."`},
		{"type: integer", "type: whole", "integer"},
		{"#/components/schemas/Part' }, {", "#/components/schemas/Whole' }, {", "Whole"},
		{"    Error:", "    More: { type: object, description: x }\n    Error:", "nothing uses #/components/schemas/More"},
	} {
		_, err := Parse([]byte(strings.Replace(small, test.old, test.new, 1)))
		verify.That(t, err != nil && strings.Contains(err.Error(), test.want), "%q in place of %q: got %v, want %q", test.new, test.old, err, test.want)
	}
}

func TestCheck(t *testing.T) {
	d := parse(t, small)
	const thing = `{"name": "a", "size": 1, "made": "2026-01-02T03:04:05Z", "part": null}`
	for _, test := range []struct {
		method, url string
		status      int
		body, want  string
	}{
		{"GET", "/things/x", 200, thing, ""},
		{"HEAD", "/things/x?all=true", 200, "", ""},
		{"GET", "/things/x", 200, strings.Replace(thing, "null", `{"size": 2}`, 1), ""},
		{"GET", "/things/x", 404, `{"error": "no"}`, ""},
		{"GET", "/nothing", 404, `{"error": "no"}`, ""},
		{"DELETE", "/things/x", 405, `{"error": "no"}`, ""},
		{"POST", "/things/first", 200, "[" + thing + "]", ""},
		{"GET", "/things/x", 200, strings.Replace(thing, `"size": 1, `, "", 1), "size"},
		{"GET", "/things/x", 200, strings.Replace(thing, `"size": 1`, `"size": "1"`, 1), "got string, want integer"},
		{"GET", "/things/x", 200, strings.Replace(thing, `"size"`, `"new": 3, "size"`, 1), "new"},
		{"GET", "/things/x", 200, strings.Replace(thing, "null", `{"size": 2, "new": 3}`, 1), "new"},
		{"GET", "/things/x", 200, strings.Replace(thing, "2026-01-02T", "2026-01-02 ", 1), "date-time"},
		{"GET", "/things/x", 200, "x", "not JSON"},
		{"GET", "/things/x?every=true", 200, thing, `the document has no parameter "every" of it`},
		{"GET", "/things/x", 409, `{"error": "no"}`, "the document has no such status of it: add it to responses"},
		{"GET", "/things/x/parts", 200, thing, "the document has no such path: add it to paths"},
		{"PUT", "/things/x", 200, thing, "the document has no such method of this path: add it"},
		{"GET", "/things/first", 200, thing, "the document has no such method of this path: add it"},
	} {
		target, err := url.Parse(test.url)
		verify.NoError(t, err)
		err = d.Check(Answer{test.method, target, test.status, http.Header{"Content-Type": {"application/json"}}, []byte(test.body)})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s %s: %d %s: got %v, want %q", test.method, test.url, test.status, test.body, err, test.want)
		}
	}
}

type Part struct {
	Size int `json:"size"`
}

type Thing struct {
	Part
	Name string    `json:"name"`
	Made time.Time `json:"made"`
	Note string    `json:"note,omitempty"`
	More *Part     `json:"part"`
}

func TestCompare(t *testing.T) {
	for _, test := range []struct{ old, new, want string }{
		{"", "", ""},
		{"type: integer", "type: number", "Part.size: the document says number, the type int of Go is integer"},
		{"format: date-time, ", "", "Thing.made: want the format date-time"},
		{"required: [name, made, part]", "required: [name, made, part, note]", "Thing: the member note is required in the document: true"},
		{"required: [size]", "required: []", "Thing: the member size is required in the document: false"},
		{"oneOf: [{ $ref: '#/components/schemas/Part' }, { type: 'null' }]", "$ref: '#/components/schemas/Part'", "Thing: the member part may be null in the document: false, in Go: true"},
		{"        note:", "        notes:", "Thing: the document lacks the member note: add it to properties"},
		{"        note:", "        new: { type: string, description: x }\n        note:", "Thing: the document has the member new, the type openapitest.Thing of Go has not"},
	} {
		d := parse(t, strings.Replace(small, test.old, test.new, 1))
		types := Types{Document: d, Names: map[reflect.Type]string{}}
		var all []string
		for _, o := range d.Operations() {
			if o.String() == "GET /things/{id}" {
				all = append(all, types.Compare(o, Thing{})...)
			}
		}
		got := strings.Join(all, "\n")
		verify.That(t, (test.want != "" || got == "") && strings.Contains(got, test.want), "%q in place of %q: got %q, want %q", test.new, test.old, got, test.want)
	}
}
