package config

import (
	"reflect"
	"slices"

	"sluice/config/decoding"
)

// JSONSchema returns the JSON Schema (draft 2020-12) of the configuration file, for editors. They
// find unknown keys, missing ones and values of a wrong kind with it. It allows each file that the
// decoder takes, but does not know what depends on more than one key. meaning returns what a key
// means, in the form of docs/configuration.md.
func JSONSchema(meaning func(key string) string) map[string]any {
	w := schemaWriter{meaning: meaning, shared: make(map[string]any)}
	root := w.of(reflect.TypeFor[Config](), "", decoding.Rules{})
	root["$schema"], root["title"], root["$defs"] = "https://json-schema.org/draft/2020-12/schema", "sluice.yaml", w.shared
	return root
}

type schemaWriter struct {
	meaning func(key string) string
	within  []reflect.Type // structs that contain the present one
	shared  map[string]any // by name: what contains itself
}

func (w *schemaWriter) of(t reflect.Type, key string, r decoding.Rules) map[string]any {
	switch decoding.Kind(t) {
	case reflect.Pointer:
		return w.of(t.Elem(), key, r)
	case reflect.Slice:
		if decoding.Kind(t.Elem()) == reflect.Struct {
			key += "[]"
		}
		return map[string]any{"type": []string{"array", "null"}, "items": w.of(t.Elem(), key, r)}
	case reflect.Map:
		return map[string]any{"type": []string{"object", "null"}, "additionalProperties": w.of(t.Elem(), decoding.Join(key, "NAME"), decoding.Rules{})}
	case reflect.Struct:
		return w.object(t, key)
	}
	return r.JSONSchema(t)
}

func (w *schemaWriter) object(t reflect.Type, key string) map[string]any {
	if slices.Contains(w.within, t) {
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	}
	w.within = append(w.within, t)
	properties, again := make(map[string]any), false
	var required []string
	for _, f := range decoding.Fields(t) {
		name := f.Tag.Get("key")
		at := decoding.Join(key, name)
		below := w.of(f.Type, at, schema.Rules(f.Tag))
		if text := w.meaning(at); text != "" {
			below["description"] = text
		}
		properties[name] = below
		if f.Tag.Get("required") != "" {
			required = append(required, name)
		}
		again = again || f.Type == reflect.PointerTo(t) || f.Type == reflect.SliceOf(t)
	}
	w.within = w.within[:len(w.within)-1]
	object := map[string]any{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		object["required"] = required
	}
	if again {
		w.shared[t.Name()] = object
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	}
	return object
}
