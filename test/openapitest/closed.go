package openapitest

import "maps"

// open is the end of the name of a component that allows further members: what allOf refers to.
const open = ".open"

// closed returns the document with schemas that allow no members but their own, unless they
// have additionalProperties. Clients must accept further ones, so the document itself does
// not say so.
func (d *Document) closed() map[string]any {
	root := closeAll(d.root, false).(map[string]any)
	schemas := root["components"].(map[string]any)["schemas"].(map[string]any)
	for name, schema := range d.components("schemas") {
		schemas[name+open] = closeAll(schema, true)
	}
	return root
}

// closeAll closes v and what is in it. If v is part of an allOf, it stays open itself.
func closeAll(v any, part bool) any {
	switch v := v.(type) {
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = closeAll(v[i], part)
		}
		return all
	case map[string]any:
		object := make(map[string]any, len(v))
		for key, value := range v {
			switch properties, ok := value.(map[string]any); {
			case key == "properties" && ok:
				closed := maps.Clone(properties)
				for name, property := range properties {
					closed[name] = closeAll(property, false)
				}
				object[key] = closed
			case key == "$ref" && part:
				object[key] = value.(string) + open
			default:
				object[key] = closeAll(value, key == "allOf")
			}
		}
		_, fields := v["properties"]
		_, parts := v["allOf"]
		if _, explicit := v["additionalProperties"]; !explicit && !part && (fields || parts) {
			object["unevaluatedProperties"] = false
		}
		return object
	}
	return v
}
