package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes is the most that a configuration file may hold: far beyond any
// real one, small enough to refuse a file named by mistake.
const maxFileBytes = 16 << 20

// Input says where a configuration comes from. Empty fields are not given.
type Input struct {
	File    string // --config
	Service string // --service, only without File
	Listen  string // --listen, only where File lists no listeners
	Admin   string // --admin
	Consul  string // --consul

	// Getenv returns the value of an environment variable, os.Getenv in the
	// program. With nil the environment is not used.
	Getenv func(string) string
}

// Source names the input for people: the file or "command line".
func (in Input) Source() string {
	if in.File == "" {
		return "command line"
	}
	return in.File
}

// Load reads, decodes and checks a configuration. Mistakes in it are
// returned together, as Errors. The revision has no number and no time yet:
// it gets them in History.Applied.
func (in Input) Load() (*Revision, error) {
	var data []byte
	switch {
	case in.File == "" && in.Service == "":
		return nil, errors.New("nothing to serve: give --config FILE, or --service NAME for a service in Consul")
	case in.File != "" && in.Service != "":
		return nil, fmt.Errorf("--service %s: not allowed beside --config: name the service in %s", in.Service, in.File)
	case in.File != "":
		var err error
		if data, err = readFile(in.File); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	c, warnings, err := in.parse(data)
	if err != nil {
		return nil, err
	}
	return &Revision{Source: in.Source(), Hash: hashOf(data), Config: c, Warnings: warnings}, nil
}

// Parse decodes and checks the text of a configuration file, without any
// flag or environment. The name is used in errors, which are of type Errors.
func Parse(name string, data []byte) (*Config, error) {
	c, _, err := Input{File: name}.parse(data)
	return c, err
}

func (in Input) parse(data []byte) (c *Config, warnings []string, err error) {
	d := &decoder{file: in.Source(), origins: map[*yaml.Node]string{}, places: map[string]place{}}
	root := d.document(data)
	if len(d.errs) > 0 {
		return nil, nil, d.errs
	}
	in.override(d, root)
	c = new(Config)
	d.value(root, reflect.ValueOf(c).Elem(), "", rules{})
	d.complete(c, in.tls())
	if len(d.errs) > 0 {
		return nil, nil, d.errs.sorted()
	}
	for _, key := range d.retired.sorted() {
		warnings = append(warnings, key.Error())
	}
	return c, warnings, nil
}

// document parses data into a mapping node, an empty one for an empty file.
func (d *decoder) document(data []byte) *yaml.Node {
	empty := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1}
	reader := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := reader.Decode(&doc); errors.Is(err, io.EOF) {
		return empty
	} else if err != nil {
		d.syntax(err)
		return nil
	}
	if err := reader.Decode(&second); err == nil {
		d.fail(d.placeOf(&second), "", "", "a second document: one file holds one configuration")
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
	}
	root := present(&doc)
	if root.Kind == yaml.DocumentNode {
		root = present(root.Content[0])
	}
	if root == nil {
		return empty
	}
	if root.Kind != yaml.MappingNode {
		d.fail(d.placeOf(root), "", "", "want a mapping of keys to values, not a "+kindOf(root))
	}
	return root
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax records an error of the YAML parser, with its line where it names one.
func (d *decoder) syntax(err error) {
	text := err.Error()
	match := yamlLine.FindStringSubmatch(text)
	p := place{origin: d.file}
	if len(match) > 1 && match[1] != "" {
		p.line, _ = strconv.Atoi(match[1])
		p.origin = atLine(d.file, p.line)
	}
	d.fail(p, "", "", "not valid YAML: "+strings.TrimSpace(yamlLine.ReplaceAllString(text, "")))
}

// readFile reads a regular file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s: larger than %s", path, formatSize(maxFileBytes))
	}
	return data, nil
}

// hashOf identifies the bytes of a configuration file: the start of their
// SHA-256 in hexadecimal.
func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}
