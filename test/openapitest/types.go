package openapitest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Types compares the schemas of answers with the Go types that are encoded.
type Types struct {
	Document *Document

	// Names are the schemas of types with another name than the type's.
	Names map[reflect.Type]string

	seen map[reflect.Type]bool
}

// Compare returns the differences between the JSON schema of the status 200 of an operation and
// the type of v: names, presence, types and null of all members, at every depth.
func (t *Types) Compare(o *Operation, v any) (differences []string) {
	if t.seen == nil {
		t.seen = make(map[reflect.Type]bool)
	}
	return t.compare(o.String(), o.responses["200"].names["application/json"].(map[string]any), reflect.TypeOf(v))
}

// HasJSON reports whether the operation answers with JSON.
func (o *Operation) HasJSON() bool { return o.responses["200"].schemas["application/json"] != nil }

var (
	timeType = reflect.TypeFor[time.Time]()
	rawType  = reflect.TypeFor[json.RawMessage]()
	textType = reflect.TypeFor[encoding.TextMarshaler]()
)

func (t *Types) compare(at string, schema map[string]any, typ reflect.Type) (differences []string) {
	differ := func(format string, a ...any) { differences = append(differences, at+": "+fmt.Sprintf(format, a...)) }
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	schema, _ = t.nullable(schema)
	ref, _ := schema["$ref"].(string)
	name := strings.TrimPrefix(ref, "#/components/schemas/")
	schema = t.Document.resolve(schema)
	want := ""
	switch {
	case typ == timeType:
		if want = "string"; schema["format"] != "date-time" {
			differ("want the format date-time")
		}
	case typ == rawType:
		want = "object"
	case typ.Implements(textType), reflect.PointerTo(typ).Implements(textType):
		want = "string"
	default:
		want = map[reflect.Kind]string{
			reflect.Bool: "boolean", reflect.String: "string", reflect.Float64: "number", reflect.Float32: "number", reflect.Uint16: "integer", reflect.Uint32: "integer", reflect.Int: "integer", reflect.Int64: "integer",
			reflect.Uint64: "integer", reflect.Slice: "array", reflect.Map: "object", reflect.Struct: "object",
		}[typ.Kind()]
	}
	if !hasType(schema, want) {
		differ("the document says %v, the type %s of Go is %s", schema["type"], typ, want)
		return differences
	}
	switch _, anything := schema["additionalProperties"].(bool); {
	case typ == timeType, typ == rawType, want == "string", anything:
	case want == "array":
		items, ok := schema["items"].(map[string]any)
		if !ok {
			differ("want items")
			break
		}
		differences = append(differences, t.compare(at+"[]", items, typ.Elem())...)
	case typ.Kind() == reflect.Map:
		values, ok := schema["additionalProperties"].(map[string]any)
		if !ok {
			differ("want additionalProperties")
			break
		}
		differences = append(differences, t.compare(at+".*", values, typ.Elem())...)
	case want == "object":
		wantName := typ.Name()
		if other := t.Names[typ]; other != "" {
			wantName = other
		}
		if name != wantName {
			differ("the document refers to %q, want the schema %s for the type %s", name, wantName, typ)
		}
		if !t.seen[typ] {
			t.seen[typ] = true
			differences = append(differences, t.compareMembers(wantName, schema, typ)...)
		}
	}
	return differences
}

func (t *Types) compareMembers(name string, schema map[string]any, typ reflect.Type) (differences []string) {
	differ := func(format string, a ...any) { differences = append(differences, name+": "+fmt.Sprintf(format, a...)) }
	properties, required := t.members(schema)
	known := make(map[string]bool)
	for _, field := range fieldsOf(typ) {
		tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		known[tag] = true
		property, ok := properties[tag].(map[string]any)
		if !ok {
			differ("the document lacks the member %s: add it to properties", tag)
			continue
		}
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if optional == slices.Contains(required, tag) {
			differ("the member %s is required in the document: %t; its tag in Go says %s", tag, optional, field.Tag)
		}
		if _, null := t.nullable(property); field.Type.Kind() == reflect.Pointer && null == optional {
			differ("the member %s may be null in the document: %t, in Go: %t", tag, null, !optional)
		}
		differences = append(differences, t.compare(name+"."+tag, property, field.Type)...)
	}
	for property := range properties {
		if !known[property] {
			differ("the document has the member %s, the type %s of Go has not", property, typ)
		}
	}
	return differences
}

// fieldsOf returns the fields that package json encodes, also fields of embedded structs.
func fieldsOf(typ reflect.Type) (fields []reflect.StructField) {
	for field := range typ.Fields() {
		switch tag := field.Tag.Get("json"); {
		case tag == "" && field.Anonymous:
			fields = append(fields, fieldsOf(field.Type)...)
		case tag != "" && tag != "-":
			fields = append(fields, field)
		}
	}
	return fields
}

// members returns the properties of a schema and its parts, and the required ones.
func (t *Types) members(schema map[string]any) (properties map[string]any, required []string) {
	properties = make(map[string]any)
	parts, _ := schema["allOf"].([]any)
	for _, part := range parts {
		inherited, names := t.members(t.Document.resolve(part))
		for name, p := range inherited {
			properties[name] = p
		}
		required = append(required, names...)
	}
	own, _ := schema["properties"].(map[string]any)
	for name, p := range own {
		properties[name] = p
	}
	names, _ := schema["required"].([]any)
	for _, name := range names {
		required = append(required, name.(string))
	}
	return properties, required
}

// nullable returns a schema without null, and whether it allows null.
func (t *Types) nullable(schema map[string]any) (map[string]any, bool) {
	if choices, ok := schema["oneOf"].([]any); ok && len(choices) == 2 && hasType(choices[1].(map[string]any), "null") {
		return choices[0].(map[string]any), true
	}
	return schema, hasType(t.Document.resolve(schema), "null")
}

// hasType reports whether a schema allows a type.
func hasType(schema map[string]any, name string) bool {
	types, ok := schema["type"].([]any)
	return schema["type"] == name || ok && slices.Contains(types, any(name))
}
