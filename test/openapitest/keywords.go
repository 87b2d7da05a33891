package openapitest

import (
	"fmt"
	"slices"
)

// keywords are those that schemas use. JSON Schema allows any other and ignores it.
var keywords = []string{
	"$ref", "additionalProperties", "allOf", "const", "contentEncoding", "default", "description", "enum", "exclusiveMinimum",
	"format", "items", "maxLength", "maximum", "minimum", "oneOf", "pattern", "properties", "propertyNames", "required", "type",
}

// checkKeywords returns an error if a schema in v has an unknown keyword. schema says whether v
// is one itself.
func checkKeywords(at string, v any, schema bool) error {
	switch v := v.(type) {
	case []any:
		for i := range v {
			if err := checkKeywords(fmt.Sprintf("%s/%d", at, i), v[i], schema); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, value := range v {
			if schema && !slices.Contains(keywords, key) {
				return fmt.Errorf("%s: unknown keyword %q: a description with a comma or a colon needs quotes", at, key)
			}
			here := at + "/" + key
			if members, ok := value.(map[string]any); ok && (key == "properties" || key == "schemas") {
				for name, member := range members {
					if err := checkKeywords(here+"/"+name, member, true); err != nil {
						return err
					}
				}
				continue
			}
			if err := checkKeywords(here, value, schema || key == "schema"); err != nil {
				return err
			}
		}
	}
	return nil
}
