package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"sluice/certificates"
	"sluice/certificates/acme/dns01"
	"sluice/config/decoding"
	"sluice/discovery"
)

// ACME obtains certificates from an authority.
type ACME struct {
	Names []string `key:"names" format:"certificate_name"` // wildcards only with DNS
	// Routes are the hosts, with wildcards, that get a certificate as soon as a route has them.
	// Names or Routes has at least one.
	Routes    []string `key:"routes" format:"routed_host"`
	Directory Location `key:"directory" default:"https://acme-v02.api.letsencrypt.org/directory" format:"http_url"`
	Email     string   `key:"email"` // of the account; may be empty
	// Storage is a directory. With ConsulKV it has copies, or is empty for none.
	Storage string `key:"storage"`
	// ConsulKV is the prefix of the keys in Consul that replicas share, without a slash
	// at its end. Empty: none.
	ConsulKV string `key:"consul_kv" format:"kv_prefix"`
	// EncryptionKeys are files with keys for the values in Consul. The first one encrypts,
	// all decrypt. None: the values are in plain text.
	EncryptionKeys []string `key:"encryption_keys" format:"file"`
	// CA is the file of the certificates that the TLS of Directory is verified with.
	// Empty: the system's.
	CA string `key:"ca" format:"file"`
	// DNS proves the names by records in DNS. nil: by the listeners, and without wildcards.
	DNS *dns01.Options `key:"dns"`
}

// defaultStorage is the default of ACME.Storage without ConsulKV.
const defaultStorage = "/var/lib/sluice/acme"

// isCertificateName reports whether s is a name of a certificate by ACME.
func isCertificateName(s string) bool { return discovery.IsHost(strings.TrimPrefix(s, "*.")) }

// isRoutedHost reports whether s may be one of ACME.Routes.
func isRoutedHost(s string) bool { return s == "*" || isCertificateName(s) }

// Allows reports whether Routes has a host, which is in lower case.
func (a *ACME) Allows(host string) bool {
	return slices.ContainsFunc(a.Routes, func(allowed string) bool {
		suffix, wildcard := strings.CutPrefix(strings.ToLower(allowed), "*")
		return wildcard && strings.HasSuffix(host, suffix) || !wildcard && host == suffix
	})
}

// RouteHosts returns the host names of the routes of a listener, in lower case, each once: first
// one of each service, then a second one of each, and so on, so that none gets a turn at another's
// cost.
func (c *Config) RouteHosts(listener string) (hosts []string) {
	ranks, of := make(map[string]int), make(map[string]int) // by host, and by service
	for _, r := range c.Routes {
		host := strings.ToLower(strings.TrimSuffix(r.Host, "."))
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		_, twice := ranks[host]
		if err != nil && !twice && discovery.IsHost(host) && (len(r.Listeners) == 0 || slices.Contains(r.Listeners, listener)) {
			ranks[host] = of[r.Service]
			of[r.Service]++
			hosts = append(hosts, host)
		}
	}
	slices.SortFunc(hosts, func(a, b string) int { return cmp.Or(cmp.Compare(ranks[a], ranks[b]), cmp.Compare(a, b)) })
	return hosts
}

// check checks the settings, and completes them. local: the listener is a unix socket.
func (a *ACME) check(d *decoder, key string, local bool) {
	if local && a.DNS == nil {
		d.Refuse(key, "", "not on a unix socket, which no authority reaches, except with acme.dns")
	}
	if a.ConsulKV == "" {
		a.Storage = cmp.Or(a.Storage, defaultStorage)
	}
	if len(a.Names)+len(a.Routes) == 0 {
		d.Refuse(decoding.Join(key, "names"), "", "empty: want at least one, such as www.example.com, or acme.routes")
	}
	for i, name := range a.Names {
		at := decoding.Item(decoding.Join(key, "names"), i)
		if _, err := netip.ParseAddr(name); err == nil {
			d.Refuse(at, name, "want a host name: a client that connects to an IP address requests no name")
		}
		if a.DNS == nil && strings.HasPrefix(name, "*.") {
			d.Refuse(at, name, "a wildcard needs acme.dns: authorities prove it by DNS-01 only")
		}
	}
	checkDNS(d, decoding.Join(key, "dns"), a.DNS)
	if len(a.EncryptionKeys) > 0 && a.ConsulKV == "" {
		d.Refuse(decoding.Join(key, "encryption_keys"), a.EncryptionKeys[0], "only with consul_kv: a directory is not encrypted")
	}
	for i, file := range a.EncryptionKeys {
		_, err := certificates.ReadCipher([]string{file})
		d.refuseFile(decoding.Item(decoding.Join(key, "encryption_keys"), i), file, err)
	}
	checkCA(d, decoding.Join(key, "ca"), a.CA)
}

// checkDNS checks that there is what the provider needs, and no more. It adds the ports of
// servers. a may be nil.
func checkDNS(d *decoder, key string, a *dns01.Options) {
	if a == nil || d.Failed(decoding.Join(key, "provider")) {
		return
	}
	needs := ""
	for _, k := range []struct{ name, value, of string }{
		{"token_file", a.TokenFile, dns01.Cloudflare},
		{"server", a.Server, dns01.RFC2136},
		{"key_file", a.KeyFile, dns01.RFC2136},
		{"command", strings.Join(a.Command[:min(1, len(a.Command))], ""), dns01.Exec},
	} {
		switch wanted := k.of == a.Name; {
		case wanted && k.value == "" && !d.Failed(decoding.Join(key, k.name)):
			d.Refuse(decoding.Join(key, k.name), "", "required with provider: "+a.Name)
		case wanted:
			needs = k.name // the one that can be wrong: of several, the last
		case k.value != "":
			d.Refuse(decoding.Join(key, k.name), k.value, "only with provider: "+k.of)
		}
	}
	if d.Failed(key) {
		return
	}
	d.refuseFile(decoding.Join(key, needs), cmp.Or(a.TokenFile, a.KeyFile, strings.Join(a.Command, " ")), a.Check())
	if a.Server != "" {
		a.Server = withPort(a.Server)
	}
	for i, server := range a.Resolvers {
		a.Resolvers[i] = withPort(server)
	}
}
