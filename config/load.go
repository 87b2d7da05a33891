package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"sluice/config/regular"
)

// maxFileBytes limits the size of a configuration file. It is far above the size of a real
// one, and refuses a file that was named by mistake.
const maxFileBytes = 16 << 20

// Input is the file and the flags of a configuration. Empty fields are not set.
type Input struct {
	File    string // --config
	Service string // --service; not allowed with File
	// Tags are --tags: the dialects of tags whose services and routes are served, all that they
	// claim. Not allowed with File.
	Tags   []string
	Listen string // --listen; not allowed if File has listeners
	Admin  string // --admin
	Consul string // --consul

	// OpenFiles says that Build also reads the files of users, of keys and for TLS to others, which
	// a start opens later.
	OpenFiles bool

	// Decoded keeps documents between calls of Build, which is then faster. nil: none.
	Decoded *Decoded

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

// Load reads the configuration file and the dynamic files that it names, and builds a
// configuration without the documents of registries.
func (in Input) Load() (*Built, error) {
	text, err := in.Read()
	if err != nil {
		return nil, err
	}
	sources := []Source{in.FileSource(text)}
	built, errs := in.build(sources)
	for _, y := range built.Config.Dynamic {
		if y.Kind() != KindFile || y.File == in.File {
			continue
		}
		s, err := ReadFiles(y.File)
		switch {
		case err == nil:
			sources = append(sources, s)
		case len(errs) == 0:
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	if len(sources) > 1 { // also after errors: there may be more in the documents
		built, errs = in.build(sources)
	}
	return built.unless(errs)
}

// CheckFlags returns an error unless they say what to serve, once.
func (in Input) CheckFlags() error {
	switch {
	case in.File == "" && in.Service == "" && len(in.Tags) == 0:
		return errors.New("nothing to serve: give --config FILE, --service NAME for a service in Consul, or --tags DIALECT for those with tags")
	case in.File != "" && in.Service != "":
		return fmt.Errorf("--service %s: not allowed with --config: add the service to %s", in.Service, in.File)
	case in.File != "" && len(in.Tags) > 0:
		return fmt.Errorf("--tags: not allowed with --config: set catalog.tags in %s", in.File)
	}
	return nil
}

// Read returns the text of the configuration file, or "" without one.
func (in Input) Read() (string, error) {
	if err := in.CheckFlags(); err != nil || in.File == "" {
		return "", err
	}
	f, err := os.Open(in.File) // it may be a pipe, such as /dev/stdin
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := regular.ReadAll(f, maxFileBytes)
	if err != nil {
		return "", fmt.Errorf("read configuration: %w", err)
	}
	return string(data), nil
}

// IsPipe reports whether the file has its text only once: it is no regular file.
func (in Input) IsPipe() bool {
	info, err := os.Stat(in.File)
	return err == nil && !info.Mode().IsRegular()
}

// Built is a configuration that is put together from documents.
type Built struct {
	Config *Config
	// Shadowed are the services and routes that are not used, because a source with
	// precedence has them too.
	Shadowed Errors

	whole *whole // with the trees of all documents
}

// Hash returns the hash of the configuration in canonical form: see canonicalHash.
func (b *Built) Hash() string { return canonicalHash(b.Config) }

// Build decodes and checks a whole configuration: the file, with the flags and the
// environment, which is the first source, and the documents of the sources that it names
// under "dynamic", in any order. Other sources have no effect. It depends on nothing else
// but the files that the configuration names, and returns all errors as Errors.
func (in Input) Build(sources []Source) (*Built, error) {
	built, errs := in.build(sources)
	return built.unless(errs)
}

// unless returns b, or errs if there are some.
func (b *Built) unless(errs Errors) (*Built, error) {
	if len(errs) > 0 {
		return nil, errs
	}
	return b, nil
}

// build is Build. With errors, the configuration is as far as it could be read.
func (in Input) build(sources []Source) (*Built, Errors) {
	if in.Getenv == nil {
		in.Getenv = func(string) string { return "" }
	}
	d := newDecoder(in.Source())
	d.Getenv = in.Getenv
	root := d.Parse([]byte(sources[0].Documents[0].Text))
	c := new(Config)
	if len(d.Errs) > 0 {
		return &Built{Config: c}, d.Errs
	}
	in.override(d, root)
	d.Absent = c.absent()
	schema.SetDefaults(c)
	d.Decode(root, c)
	w := &whole{file: d, config: c}
	d.whole = w
	c.checkDynamic(d, in.Source())
	c.Consul.check(d, in.tls())
	c.checkActions(d)
	c.checkDefaults(d)
	w.addFragments(sources[1:], in.Decoded)
	w.complete()
	c.checkEtcdDocuments(d)
	if in.OpenFiles {
		c.openFiles(d)
	}
	built := &Built{Config: c, Shadowed: w.shadowed, whole: w}
	return built, w.errors()
}

// hashOf returns the first bytes of the SHA-256 of data, in hexadecimal.
func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:hashBytes])
}

// hashBytes is the length of a hash that people compare.
const hashBytes = 6
