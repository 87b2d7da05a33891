package config

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/certificates"
	"sluice/config/decoding"
	"sluice/config/regular"
	"sluice/route/auth"
)

// ReadFiles reads the files that match a pattern: see Dynamic.File. A path without wildcards
// must exist, and so must the directory of a pattern: a volume that is not mounted is no
// empty directory.
func ReadFiles(pattern string) (Source, error) {
	s := Source{Name: pattern, Kind: KindFile}
	names, err := matching(pattern)
	if err != nil {
		return s, err
	}
	for _, name := range names {
		data, err := regular.ReadUpTo(name, maxFileBytes)
		if err != nil {
			return s, err
		}
		s.Documents = append(s.Documents, Document{Name: name, Text: string(data)})
	}
	s.Revision = s.Hash()
	return s, nil
}

// openFiles checks that the files of users, of keys and for TLS to others can be used. Only the
// configuration file names them.
func (c *Config) openFiles(d *decoder) {
	ofConsul := c.Consul.TLS.Files()
	ofConsul.CADirectory = c.Consul.TLS.CAPath
	openTLS(d, "consul.tls", ofConsul)
	for i := range c.Dynamic {
		if e := c.Dynamic[i].Etcd; e != nil {
			e.openFiles(d, decoding.Item("dynamic", i)+".etcd")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		s, key := c.Services[name], decoding.Join("services", name)
		if s.Etcd != nil {
			s.Etcd.openFiles(d, key+".etcd")
		}
		if t := s.Upstream.TLS; t != nil {
			openTLS(d, key+".upstream.tls", t.Files())
		}
		if a := s.Health.Active; a != nil && a.TLS != nil {
			openTLS(d, key+".health.active.tls", a.TLS.Files())
		}
	}
	for i := range c.Routes {
		c.Routes[i].openFiles(d, decoding.Item("routes", i))
	}
}

// openFiles checks that the files of users and of keys of actions can be used.
func (a *Actions) openFiles(d *decoder, key string) {
	if a.BasicAuth != nil && a.BasicAuth.UsersFile != "" {
		_, err := auth.OpenUsers(a.BasicAuth.UsersFile)
		d.refuseFile(key+".basic_auth.users_file", a.BasicAuth.UsersFile, err)
	}
	if a.JWT != nil && a.JWT.JWKSFile != "" {
		_, err := auth.OpenKeys(a.JWT.JWKSFile)
		d.refuseFile(key+".jwt.jwks_file", a.JWT.JWKSFile, err)
	}
}

func (e *EtcdCluster) openFiles(d *decoder, key string) {
	if t := e.TLS; t != nil {
		openTLS(d, key+".tls", t.Files())
	}
}

// openTLS checks that the files of the section at a key can be used. That they may be together is
// checked before.
func openTLS(d *decoder, at string, f certificates.Files) {
	if f.Cert != "" && f.Key != "" {
		checkCertificate(d, at, f.Cert, f.Key)
	}
	key, path := "ca", f.CA
	if f.CA == "" {
		key, path = "ca_path", f.CADirectory
	}
	if path != "" {
		d.needReadable(decoding.Join(at, key), path, certificates.Files{CA: f.CA, CADirectory: f.CADirectory})
	}
}

// needReadable checks that files can be loaded, of which the one of a key may be wrong.
func (d *decoder) needReadable(key, path string, files certificates.Files) {
	_, err := certificates.Read(files)
	d.refuseFile(key, path, err)
}

// refuseFile records that the file of a key cannot be used, if err is not nil.
func (d *decoder) refuseFile(key, path string, err error) {
	if err != nil {
		d.Refuse(key, path, "cannot be used: "+err.Error())
	}
}

// matching returns the paths that match a pattern, sorted. Like a shell it omits hidden
// files, such as an editor or Kubernetes keeps beside others.
func matching(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, `*?[\`) {
		return []string{pattern}, nil
	}
	if _, err := os.Stat(filepath.Dir(pattern)); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(pattern)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pattern, err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasPrefix(filepath.Base(name), ".") })
	slices.Sort(names)
	return names, nil
}
