package config

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"sluice/config/decoding"
)

// override writes the values of the environment and of the flags into the tree of the
// file, so that they are decoded and checked like the file. Flags have precedence over
// the environment, and the environment over the file.
func (in Input) override(d *decoder, root *yaml.Node) {
	type keys = map[string]any
	t := d.Edit(root)
	in.environment(t)
	if in.Consul != "" {
		t.Set("--consul", []string{in.Consul}, "consul", "addresses")
	}
	if in.Admin != "" {
		t.Set("--admin", in.Admin, "admin", "address")
	}
	if in.Service != "" {
		t.Set("--service", keys{"consul": keys{"service": in.Service}}, "services", in.Service)
		t.Set("--service", []keys{{"service": in.Service}}, "routes")
	}
	if len(in.Tags) > 0 { // there is no operator whose routes they could take
		t.Set("--tags", in.Tags, "catalog", "tags")
		t.Set("--tags", []keys{{"service": "*", "hosts": []string{"*"}}}, "catalog", "claims")
	}
	if in.Listen == "" {
		return
	}
	if listeners := t.Get("listeners"); listeners != nil {
		d.Fail(decoding.Place{Origin: "--listen"}, "", in.Listen,
			"not allowed: the file sets listeners at "+d.PlaceOf(listeners).Origin)
		return
	}
	t.Set("--listen", []keys{{"name": defaultListener, "address": in.Listen}}, "listeners")
}

// environmentKeys are the variables of Consul's own tools, and the keys that they set.
// CONSUL_HTTP_AUTH has no key: the client of Consul reads it.
var environmentKeys = []struct {
	name string
	path []string
}{
	{"CONSUL_CACERT", []string{"consul", "tls", "ca"}},
	{"CONSUL_CAPATH", []string{"consul", "tls", "ca_path"}},
	{"CONSUL_CLIENT_CERT", []string{"consul", "tls", "cert"}},
	{"CONSUL_CLIENT_KEY", []string{"consul", "tls", "key"}},
	{"CONSUL_TLS_SERVER_NAME", []string{"consul", "tls", "server_name"}},
	{"CONSUL_NAMESPACE", []string{"consul", "namespace"}},
	{"CONSUL_PARTITION", []string{"consul", "partition"}},
}

func (in Input) environment(t decoding.Tree) {
	const (
		address, verify  = "CONSUL_HTTP_ADDR", "CONSUL_HTTP_SSL_VERIFY"
		token, tokenFile = "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE"
	)
	for _, key := range environmentKeys {
		if v := in.Getenv(key.name); v != "" {
			t.Set(key.name, v, key.path...)
		}
	}
	if v := in.Getenv(address); v != "" {
		t.Set(address, []string{v}, "consul", "addresses")
	}
	if on, err := strconv.ParseBool(in.Getenv(verify)); err == nil {
		t.Set(verify, !on, "consul", "tls", "skip_verify")
	}
	// Each of them replaces both keys of the file. CONSUL_HTTP_TOKEN_FILE has
	// precedence, as in Consul's own tools.
	if v := in.Getenv(tokenFile); v != "" {
		t.Unset("consul", "token")
		t.Set(tokenFile, v, "consul", "token_file")
	} else if v := in.Getenv(token); v != "" {
		t.Unset("consul", "token_file")
		t.Set(token, v, "consul", "token")
	}
}

// tls reports whether the scheme of an address of Consul without one is HTTPS.
func (in Input) tls() bool {
	on, _ := strconv.ParseBool(strings.TrimSpace(in.Getenv("CONSUL_HTTP_SSL")))
	return on
}
