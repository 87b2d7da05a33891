package openapitest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

//go:embed openapi-3.1.json
var schemaOfDocuments []byte

// Document is a valid OpenAPI document. It is immutable.
type Document struct {
	root       map[string]any
	operations []*Operation
	schemas    map[string]*jsonschema.Schema // of components, by name, and of answers, by place
}

// Operation is a method of a path.
type Operation struct {
	Method, Path string
	Guarded      bool // it needs a token
	Operates     bool // it needs the token for orders

	names     *regexp.Regexp // matches its paths
	query     []string       // names of parameters
	responses map[string]response
}

// response is the answer with one status.
type response struct {
	schemas map[string]*jsonschema.Schema // by media type
	names   map[string]any                // the schemas as they are written
}

// String returns such as "GET /api/peers".
func (o *Operation) String() string { return o.Method + " " + o.Path }

const documentURL = "file:///openapi.json"

// Parse reads a document in JSON or YAML. It must be valid, have a description of each parameter,
// schema and member, and use each of its components.
func Parse(text []byte) (*Document, error) {
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil { // JSON is YAML
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	decoded, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if err := isOpenAPI(decoded); err != nil {
		return nil, err
	}
	d := &Document{root: decoded.(map[string]any), schemas: make(map[string]*jsonschema.Schema)}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource(documentURL, d.closed()); err != nil {
		return nil, err
	}
	for name := range d.components("schemas") {
		if d.schemas[name], err = compiler.Compile(documentURL + "#/components/schemas/" + name); err != nil {
			return nil, err
		}
	}
	for path, item := range d.root["paths"].(map[string]any) {
		for method, o := range item.(map[string]any) {
			if method == "parameters" { // of all methods
				continue
			}
			operation, err := d.operation(compiler, strings.ToUpper(method), path, item.(map[string]any), o.(map[string]any))
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", strings.ToUpper(method), path, err)
			}
			d.operations = append(d.operations, operation)
		}
	}
	slices.SortFunc(d.operations, func(a, b *Operation) int { return strings.Compare(a.String(), b.String()) })
	return d, d.check(text)
}

// isOpenAPI checks a document against the schema of all documents.
func isOpenAPI(document any) error {
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaOfDocuments))
	if err != nil {
		return err
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("file:///openapi-3.1.json", schema); err != nil {
		return err
	}
	compiled, err := compiler.Compile("file:///openapi-3.1.json")
	if err != nil {
		return err
	}
	return compiled.Validate(document)
}

func (d *Document) operation(c *jsonschema.Compiler, method, path string, item, o map[string]any) (*Operation, error) {
	operation := &Operation{Method: method, Path: path, responses: make(map[string]response)}
	pattern := regexp.MustCompile(`\\\{[a-z_]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), "[^/]+")
	operation.names = regexp.MustCompile("^" + pattern + "$")
	security, ok := o["security"].([]any)
	if !ok {
		security, _ = d.root["security"].([]any)
	}
	operation.Guarded = len(security) > 0
	for _, requirement := range security {
		roles, _ := requirement.(map[string]any)["token"].([]any)
		operation.Operates = operation.Operates || slices.Contains(roles, any("operate"))
	}

	var inPath []string
	both, _ := item["parameters"].([]any)
	own, _ := o["parameters"].([]any)
	for _, p := range append(slices.Clone(both), own...) {
		parameter := d.resolve(p)
		if parameter["description"] == nil {
			return nil, fmt.Errorf("its parameter %v has no description", parameter["name"])
		}
		switch name := parameter["name"].(string); parameter["in"] {
		case "query":
			operation.query = append(operation.query, name)
		case "path":
			inPath = append(inPath, name)
		}
	}
	var want []string
	for _, found := range regexp.MustCompile(`\{([a-z_]+)\}`).FindAllStringSubmatch(path, -1) {
		want = append(want, found[1])
	}
	if !slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(inPath))) {
		return nil, fmt.Errorf("its path has the parameters %q, and it describes %q", want, inPath)
	}

	for status, written := range o["responses"].(map[string]any) {
		answer := response{make(map[string]*jsonschema.Schema), make(map[string]any)}
		at := "#/paths/" + escape(path) + "/" + strings.ToLower(method) + "/responses/" + status
		if ref, ok := written.(map[string]any)["$ref"].(string); ok {
			at = ref
		}
		content, _ := d.resolve(written)["content"].(map[string]any)
		for media, described := range content {
			schema, err := c.Compile(documentURL + at + "/content/" + escape(media) + "/schema")
			if err != nil {
				return nil, err
			}
			answer.schemas[media] = schema
			answer.names[media] = described.(map[string]any)["schema"]
		}
		operation.responses[status] = answer
	}
	return operation, nil
}

// escape returns a token of a JSON pointer in a URL.
func escape(token string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(token)
}

// Operations returns the operations, by name.
func (d *Document) Operations() []*Operation { return slices.Clone(d.operations) }

// QueryParameters returns the names of the parameters in queries of all operations, sorted,
// without parameters of the paths below a prefix.
func (d *Document) QueryParameters(without string) []string {
	names := make(map[string]bool)
	for _, o := range d.operations {
		if strings.HasPrefix(o.Path, without) {
			continue
		}
		for _, name := range o.query {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Values returns the values that a member of a schema may have.
func (d *Document) Values(schema, member string) (values []string) {
	properties, _ := d.components("schemas")[schema].(map[string]any)["properties"].(map[string]any)
	allowed, _ := properties[member].(map[string]any)["enum"].([]any)
	for _, v := range allowed {
		values = append(values, v.(string))
	}
	return values
}

func (d *Document) components(kind string) map[string]any {
	components, _ := d.root["components"].(map[string]any)
	found, _ := components[kind].(map[string]any)
	return found
}

// resolve returns what v refers to, or v itself.
func (d *Document) resolve(v any) map[string]any {
	object := v.(map[string]any)
	ref, ok := object["$ref"].(string)
	if !ok {
		return object
	}
	parts := strings.Split(ref, "/") // "#/components/KIND/NAME"
	found, _ := d.components(parts[2])[parts[3]].(map[string]any)
	return found
}

// check returns what the schema of documents does not find.
func (d *Document) check(text []byte) error {
	ids := make(map[any]string)
	for path, item := range d.root["paths"].(map[string]any) {
		for method, o := range item.(map[string]any) {
			if operation, ok := o.(map[string]any); ok {
				id := operation["operationId"]
				if id == nil || operation["summary"] == nil || ids[id] != "" {
					return fmt.Errorf("%s %s needs a summary, and an operationId of its own (%q has it too)", method, path, ids[id])
				}
				ids[id] = path
			}
		}
	}
	for name, schema := range d.components("schemas") {
		object := schema.(map[string]any)
		if object["description"] == nil {
			return fmt.Errorf("the schema %s has no description", name)
		}
		properties, _ := object["properties"].(map[string]any)
		for property, p := range properties {
			if p.(map[string]any)["description"] == nil {
				return fmt.Errorf("the member %s of the schema %s has no description", property, name)
			}
		}
	}
	if err := checkKeywords("", d.root, false); err != nil {
		return err
	}
	for kind, components := range d.root["components"].(map[string]any) {
		for name := range components.(map[string]any) {
			if ref := "#/components/" + kind + "/" + name; kind != "securitySchemes" && !bytes.Contains(text, []byte(`"`+ref+`"`)) {
				return fmt.Errorf("nothing uses %s", ref)
			}
		}
	}
	return nil
}
