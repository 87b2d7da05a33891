package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Dynamic is a source of documents. A document has the keys services and routes of the
// configuration file, and no other one. It has exactly one of the fields.
type Dynamic struct {
	// File is the path of a file, or a pattern for files of one directory, as in
	// filepath.Match: routes.d/*.yaml.
	File     string           `key:"file" format:"files"`
	ConsulKV *DynamicConsulKV `key:"consul_kv"`
	Etcd     *DynamicEtcd     `key:"etcd"`
	// AllowEmpty means for File what DynamicConsulKV.AllowEmpty means.
	AllowEmpty bool `key:"allow_empty" default:"false"`
}

// Empties reports whether nothing of what disappears from the source stays in use: see
// discovery.Stay.
func (y Dynamic) Empties() bool {
	return y.AllowEmpty || y.ConsulKV != nil && y.ConsulKV.AllowEmpty || y.Etcd != nil && y.Etcd.AllowEmpty
}

// DynamicConsulKV names one document, or a tree of documents, in Consul's KV store.
type DynamicConsulKV struct {
	Key string `key:"key" format:"kv_key"` // one document
	// Prefix selects all keys below it: documents, whose names end in .yaml, .yml or
	// .json, and short forms. It ends with a slash after loading.
	Prefix string `key:"prefix" format:"kv_tree"`
	// AllowEmpty says that what disappears with the last key, or with the registry's memory, is
	// meant. Otherwise it stays in use for some time: see discovery.Stay.
	AllowEmpty bool `key:"allow_empty" default:"false"`
}

// KindConsulKV is the kind of a [DynamicConsulKV], and the start of the names of its documents.
const KindConsulKV = "consul_kv"

// KindEtcd is the kind of a [DynamicEtcd], and the start of the names of its documents.
const KindEtcd = "etcd"

// levels are the kinds of sources, in the order of their precedence. In all sources of a level
// together, each service and each route is there once.
var levels = []string{KindFile, KindConsulKV, KindEtcd}

// Kind returns the kind of the source, which is the key of its field.
func (y Dynamic) Kind() string {
	switch {
	case y.ConsulKV != nil:
		return KindConsulKV
	case y.Etcd != nil:
		return KindEtcd
	}
	return KindFile
}

// Name returns the name of the source, which no other one has: the pattern
// of files, "consul_kv:" and the key or the prefix, or "etcd:" and the prefix of its keys.
func (y Dynamic) Name() string {
	if kv := y.ConsulKV; kv != nil {
		return KindConsulKV + ":" + kv.Key + kv.Prefix
	}
	if y.Etcd != nil {
		return KindEtcd + ":" + y.Etcd.Keys()
	}
	return y.File
}

// writer returns who wrote a document of the source. What the file says about the instances in
// etcd is its own.
func (y Dynamic) writer(doc Document) Setter {
	if y.File != "" || y.Etcd != nil && y.Etcd.Prefix != "" && doc == y.Etcd.Instances() {
		return ByFile
	}
	return ByDocument
}

// checkDynamic completes and checks the sources of documents.
func (c *Config) checkDynamic(d *decoder, file string) {
	first := make(map[string]string, len(c.Dynamic))
	for i := range c.Dynamic {
		y := &c.Dynamic[i]
		key := fmt.Sprintf("dynamic[%d]", i)
		if d.Failed(key) {
			continue
		}
		if set := setKeys([]given{{"file", y.File != ""}, {"consul_kv", y.ConsulKV != nil}, {"etcd", y.Etcd != nil}}); len(set) != 1 {
			d.Refuse(key, "", "want exactly one of file, consul_kv and etcd")
			continue
		}
		if y.AllowEmpty && y.File == "" {
			d.Refuse(key+".allow_empty", "true", "only beside file; consul_kv and etcd have an allow_empty of their own")
		}
		if y.Etcd != nil {
			y.Etcd.check(d, key+".etcd")
		}
		if kv := y.ConsulKV; kv != nil {
			if (kv.Key == "") == (kv.Prefix == "") {
				d.Refuse(key+".consul_kv", "", "want exactly one of key and prefix")
				continue
			}
			if kv.Prefix != "" {
				kv.Prefix = strings.TrimSuffix(kv.Prefix, "/") + "/"
				for _, other := range c.ownPrefixes() {
					if below := other.prefix + "/"; below != "/" && (strings.HasPrefix(below, kv.Prefix) || strings.HasPrefix(kv.Prefix, below)) {
						d.Refuse(key+".consul_kv.prefix", kv.Prefix, "has keys in common with "+other.key+", "+other.prefix+", which are no documents")
					}
				}
			}
		}
		if y.Name() == file {
			d.Refuse(key, y.Name(), "this is the configuration file")
		}
		d.RefuseDuplicate(first, y.Name(), key, y.Name())
	}
}

// ownPrefix is a prefix of keys in Consul's KV store that are no documents.
type ownPrefix struct{ key, prefix string }

// ownPrefixes returns the prefixes that the configuration names.
func (c *Config) ownPrefixes() []ownPrefix {
	own := []ownPrefix{{"consul.shares", c.Consul.Shares}, {"consul.orders", c.Consul.OrdersPrefix()}}
	for i, l := range c.Listeners {
		if l.TLS == nil {
			continue
		}
		key := fmt.Sprintf("listeners[%d].tls", i)
		if l.TLS.ACME != nil {
			own = append(own, ownPrefix{key + ".acme.consul_kv", l.TLS.ACME.ConsulKV})
		}
		for j, certificate := range l.TLS.Certificates {
			own = append(own, ownPrefix{fmt.Sprintf("%s.certificates[%d].consul_kv", key, j), certificate.ConsulKV})
		}
	}
	return own
}

// isFiles reports whether s is a pattern for files of one directory.
func isFiles(s string) bool {
	_, err := filepath.Match(s, "")
	return err == nil && !strings.HasSuffix(s, "/") && !strings.ContainsAny(filepath.Dir(s), "*?[")
}

// TreeDocument returns the document in the key below a tree of documents; rest is the part
// of its key after the prefix.
func TreeDocument(kind, key, rest, text string) Document {
	doc := Document{Name: kind + ":" + key, Text: text}
	if !isDocumentName(rest) {
		doc.Short = rest
	}
	return doc
}

// IsDocument reports whether a key below a tree of documents is a document or a short form. rest
// is the part of it after the prefix.
func IsDocument(rest string) bool {
	return isDocumentName(rest) || strings.HasPrefix(rest, shortForm)
}

// isDocumentName reports whether the value of a key in a tree is a document.
func isDocumentName(key string) bool {
	return strings.HasSuffix(key, ".yaml") || strings.HasSuffix(key, ".yml") || strings.HasSuffix(key, ".json")
}
