package admin

import (
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed openapi.yaml
var openAPIText []byte

// openAPIDocument is openapi.yaml without the version of the program.
var openAPIDocument = sync.OnceValue(func() (document map[string]any) {
	if err := yaml.Unmarshal(openAPIText, &document); err != nil {
		panic(fmt.Sprintf("BUG: openapi.yaml: %v", err))
	}
	return document
})

// openAPI answers /api/openapi.json with the description of this API.
func (h programHandler) openAPI(*http.Request) (any, error) {
	document := maps.Clone(openAPIDocument())
	info := maps.Clone(document["info"].(map[string]any))
	info["version"] = h.Version
	document["info"] = info
	return document, nil
}
