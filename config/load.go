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

// maxFileBytes limits the size of a configuration file. It is far above that of a real
// one, and refuses a file that was named by mistake.
const maxFileBytes = 16 << 20

// Input is the file and the flags of a configuration. Empty fields are not set.
type Input struct {
	File    string // --config
	Service string // --service; not allowed with File
	Listen  string // --listen; not allowed if File has listeners
	Admin   string // --admin
	Consul  string // --consul

	// Getenv returns the value of an environment variable, like os.Getenv. nil: the
	// environment has no effect.
	Getenv func(string) string
}

// Source returns the path of the file, or "command line".
func (in Input) Source() string {
	if in.File == "" {
		return "command line"
	}
	return in.File
}

// Load reads, decodes and checks a configuration. It returns all errors in it as Errors.
// History.Applied sets the number and the time of the revision.
func (in Input) Load() (*Revision, error) {
	var data []byte
	switch {
	case in.File == "" && in.Service == "":
		return nil, errors.New("nothing to serve: give --config FILE, or --service NAME for a service in Consul")
	case in.File != "" && in.Service != "":
		return nil, fmt.Errorf("--service %s: not allowed with --config: add the service to %s", in.Service, in.File)
	case in.File != "":
		var err error
		if data, err = readFile(in.File, maxFileBytes); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	c, warnings, err := in.parse(data)
	if err != nil {
		return nil, err
	}
	return &Revision{Source: in.Source(), Hash: hashOf(data), Config: c, Warnings: warnings}, nil
}

// Parse decodes and checks the text of a configuration file, without flags and
// environment. Errors are of type Errors and contain the name.
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
	d.move(root)
	in.override(d, root)
	c = new(Config)
	d.value(root, reflect.ValueOf(c).Elem(), "", rules{})
	d.complete(c, in.tls())
	if len(d.errs) > 0 {
		return nil, nil, d.errs.sorted()
	}
	for _, key := range d.old.sorted() {
		warnings = append(warnings, key.Error())
	}
	return c, warnings, nil
}

// document parses data into a mapping node, which is empty for an empty file.
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
		d.fail(d.placeOf(&second), "", "", "a second document: a file contains one configuration")
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

// syntax records an error of the YAML parser, with its line if it has one.
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

// readFile reads a file of at most maxBytes.
func readFile(path string, maxBytes int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil && int64(len(data)) > maxBytes {
		err = fmt.Errorf("%s: larger than %s", path, formatSize(maxBytes))
	}
	return data, err
}

// hashOf returns the first bytes of the SHA-256 of data, in hexadecimal.
func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:6])
}
