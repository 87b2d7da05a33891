package config

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/certificates"
	"sluice/config/decoding"
	"sluice/config/regular"
	"sluice/discovery"
)

// EtcdCluster is how to connect to etcd.
type EtcdCluster struct {
	Endpoints    []Location              `key:"endpoints" format:"etcd" required:"yes"` // all with the same scheme
	User         string                  `key:"user"`                                   // empty: without authentication
	PasswordFile string                  `key:"password_file" format:"file"`
	TLS          *certificates.ClientTLS `key:"tls"` // nil: the defaults
}

// EtcdService selects instances in etcd: each key that begins with a prefix is one, or a
// single key is.
type EtcdService struct {
	EtcdCluster
	Prefix string `key:"prefix" format:"etcd_prefix"`
	Key    string `key:"key" format:"etcd_key"`

	// Probation is how long an instance that etcd has lost stays in use, if it does not
	// fail. 0: it is removed at once.
	Probation time.Duration `key:"probation" default:"10m" min:"0s" max:"24h"`
}

// defaultEtcdProbation is the default of EtcdService.Probation.
const defaultEtcdProbation = discovery.Stay

// isEtcdURL reports whether s is http://HOST:PORT or https://HOST:PORT.
func isEtcdURL(s string) bool {
	u, err := parseURL(s)
	return err == nil && u.Port() != "" && u.Path == "" && u.RawQuery == "" && !u.ForceQuery && !strings.Contains(s, ",")
}

// DynamicEtcd names the keys in etcd that begin with a prefix. They are either instances of one
// service or documents, never both: who may write an instance must not get the rights of a
// document.
type DynamicEtcd struct {
	EtcdCluster
	Prefix string `key:"prefix" format:"etcd_prefix"` // each key below is an instance
	// Documents is in place of Prefix: each key below is a document, whose name ends in .yaml, .yml
	// or .json, or a short form.
	Documents string `key:"documents" format:"etcd_prefix"`
	// Service is the name of the service of the instances; "": the last part of Prefix
	// between slashes. Not empty after loading, if there is a Prefix.
	Service string `key:"service" format:"name"`
	// AllowEmpty says that what disappears with the cluster's memory is meant: see discovery.Stay.
	AllowEmpty bool `key:"allow_empty" default:"false"`
}

// check completes and checks e.
func (e *DynamicEtcd) check(d *decoder, key string) {
	e.EtcdCluster.check(d, key)
	switch {
	case (e.Prefix == "") == (e.Documents == ""):
		if !d.Failed(decoding.Join(key, "prefix")) && !d.Failed(decoding.Join(key, "documents")) {
			d.Refuse(key, "", "want either prefix, of instances, or documents, the prefix of documents")
		}
	case e.Documents != "" && e.Service != "":
		d.Refuse(decoding.Join(key, "service"), e.Service, "only with prefix: documents name their services")
	case e.Prefix != "" && e.Service == "":
		e.Service = path.Base("/" + e.Prefix)
		if !formats["name"].OK(e.Service) {
			e.Service = KindEtcd
		}
	}
}

// Keys returns what the keys of e begin with.
func (e *DynamicEtcd) Keys() string { return e.Prefix + e.Documents }

// checkEtcdDocuments checks that no key of a document is also one of an instance.
func (c *Config) checkEtcdDocuments(d *decoder) {
	instances := make(map[string]string) // prefixes or keys, by the key of the configuration
	for i, y := range c.Dynamic {
		if y.Etcd != nil && y.Etcd.Prefix != "" {
			instances[fmt.Sprintf("dynamic[%d].etcd", i)] = y.Etcd.Prefix
		}
	}
	for name, s := range c.Services {
		if s.Etcd != nil {
			instances["services."+name+".etcd"] = s.Etcd.Prefix + s.Etcd.Key
		}
	}
	for i, y := range c.Dynamic {
		if y.Etcd == nil || y.Etcd.Documents == "" {
			continue
		}
		documents := y.Etcd.Documents
		for _, key := range slices.Sorted(maps.Keys(instances)) {
			if strings.HasPrefix(instances[key], documents) || strings.HasPrefix(documents, instances[key]) {
				d.Refuse(fmt.Sprintf("dynamic[%d].etcd.documents", i), documents, "has keys in common with "+key+", "+instances[key]+
					", which are instances: who may write those must not write documents")
			}
		}
	}
}

// Instances returns the document that the instances below the prefix stand for: a service
// that watches them, and a route for all requests.
func (e *DynamicEtcd) Instances() Document {
	service := EtcdService{EtcdCluster: e.EtcdCluster, Prefix: e.Prefix, Probation: defaultEtcdProbation}
	root := decoding.MappingNode("services", decoding.MappingNode(e.Service, decoding.MappingNode(KindEtcd, schema.Encode(service, false))))
	root.Content = append(root.Content, decoding.TextNode("routes"), decoding.ListNode([]*yaml.Node{decoding.MappingNode("service", decoding.TextNode(e.Service))}))
	text, err := yaml.Marshal(root)
	if err != nil {
		panic(fmt.Sprintf("BUG: config: %v", err))
	}
	return Document{Name: KindEtcd + ":" + e.Prefix, Text: string(text)}
}

// check checks which keys may be set together, and that the files can be read.
func (e *EtcdService) check(d *decoder, key string) {
	if (e.Prefix == "") == (e.Key == "") && !d.Failed(decoding.Join(key, "prefix")) && !d.Failed(decoding.Join(key, "key")) {
		d.Refuse(key, "", `want either prefix, such as "/nodes/", or key`)
	}
	e.EtcdCluster.check(d, key)
}

// check checks the keys of a connection to etcd.
func (e *EtcdCluster) check(d *decoder, key string) {
	secure := false
	for i, endpoint := range e.Endpoints {
		scheme, _, _ := strings.Cut(endpoint.Reveal(), "://")
		if i > 0 && secure != (scheme == "https") {
			d.Refuse(decoding.Join(key, "endpoints"), endpoint.String(), "want http or https for all endpoints")
			break
		}
		secure = scheme == "https"
	}
	if (e.User == "") != (e.PasswordFile == "") {
		d.Refuse(decoding.Join(key, "user"), e.User, "give both user and password_file, or neither")
	}
	if file := e.PasswordFile; file != "" {
		if _, err := regular.ReadFile(file); err != nil {
			d.Refuse(decoding.Join(key, "password_file"), file, "cannot be read: "+err.Error())
		}
	}
	if t := e.TLS; t != nil {
		if !secure && len(e.Endpoints) > 0 {
			d.Refuse(decoding.Join(key, "tls"), "", "only with endpoints that begin with https://")
		}
		needPair(d, decoding.Join(key, "tls"), t.Cert, t.Key)
	}
}
