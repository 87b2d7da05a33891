package decoding

import (
	"encoding/json"
	"reflect"
	"strconv"
)

// JSONSchema returns the JSON Schema of the values of type t that the rules allow, and of more:
// formats are not in it. Each value may be a text with variables, or null, as an absent key.
func (r Rules) JSONSchema(t reflect.Type) map[string]any {
	types := func(pattern string, kinds ...string) map[string]any {
		s := map[string]any{"type": append(kinds, "string", "null")}
		if pattern != "" {
			s["pattern"] = pattern + `|\$\{`
		}
		return s
	}
	var s map[string]any
	switch {
	case len(r.oneof) > 0:
		words := []any{nil}
		for _, word := range r.oneof {
			words = append(words, jsonValue(word, t))
			if _, err := strconv.ParseFloat(word, 64); err == nil && Kind(t) == reflect.String {
				words = append(words, json.Number(word)) // without quotes
			}
		}
		if r.Default == "" {
			words = append(words, "")
		}
		s = map[string]any{"anyOf": []any{map[string]any{"enum": words}, map[string]any{"type": "string", "pattern": `\$\{`}}}
	case t == durationType, t == sizeType, t == ratioType:
		s = types("", "number")
	case t.Kind() == reflect.Float64:
		s = types(`^[-+.0-9eE]+$`, "number")
	case t.Kind() == reflect.Int:
		s = types(`^[-+]?[0-9]+$`, "integer")
		if r.min != "" {
			s["minimum"], s["maximum"] = json.Number(r.min), json.Number(r.max)
		}
	case t.Kind() == reflect.Bool:
		s = types(`^(true|false)$`, "boolean")
	default:
		s = types("", "number", "boolean") // a text without quotes may look like them
	}
	if r.Default != "" {
		s["default"] = jsonValue(r.Default, t)
	}
	return s
}

// jsonValue returns a value of type t, which the file has as text, as JSON has it.
func jsonValue(text string, t reflect.Type) any {
	switch {
	case t == durationType, t == sizeType, t == ratioType:
		return text
	case t.Kind() == reflect.Int, t.Kind() == reflect.Float64:
		return json.Number(text)
	case t.Kind() == reflect.Bool:
		return text == "true"
	}
	return text
}
