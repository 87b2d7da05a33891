package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"sluice/certificates"
	"sluice/consul"
	"sluice/test/verify"
)

func environ(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestServiceFlagEqualsFile(t *testing.T) {
	in := Input{Service: "star", Getenv: environ()}
	flags := verify.Result(in.Load()).Must(t)
	file := withoutOrigins(mustParse(t, tail))
	verify.That(t, reflect.DeepEqual(withoutOrigins(flags.Config), file), "flags %+v\nfile  %+v", flags.Config, file)
	verify.Equal(t, in.Source(), "command line", "source")
}

func TestTagsFlagEqualsFile(t *testing.T) {
	flags := verify.Result(Input{Tags: []string{"fabio", "traefik"}}.Load()).Must(t)
	file := withoutOrigins(mustParse(t, `catalog: { tags: [fabio, traefik], claims: [{ service: "*", hosts: ["*"] }] }`))
	verify.That(t, reflect.DeepEqual(withoutOrigins(flags.Config), file), "flags %+v\nfile  %+v", flags.Config, file)
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	text := "consul: &c\n  addresses: [\"http://file:1\"]\n  token_file: /file\n  tls: { ca: file }\nadmin: { address: 127.0.0.1:1 }" + tail
	verify.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	env := environ("CONSUL_HTTP_ADDR", "env:1", "CONSUL_HTTP_TOKEN", "s3cret", "CONSUL_HTTP_SSL", "true",
		"CONSUL_CACERT", "env", "CONSUL_TLS_SERVER_NAME", "name", "CONSUL_HTTP_SSL_VERIFY", "false", "CONSUL_NAMESPACE", "ns")
	load := func(in Input) *Config {
		t.Helper()
		in.File = file
		return verify.Result(in.Load()).Must(t).Config
	}
	ofFile, ofEnv := load(Input{}).Consul, load(Input{Getenv: env}).Consul
	verify.That(t, ofFile.Addresses[0].Reveal() == "http://file:1" && ofFile.TokenFile == "/file", "file: %+v", ofFile)
	verify.That(t, len(ofEnv.Addresses) == 1 && ofEnv.Addresses[0].Reveal() == "https://env:1" && ofEnv.Token.Reveal() == "s3cret" && ofEnv.TokenFile == "" && ofEnv.Namespace == "ns", "environment over file: %+v", ofEnv)
	verify.Equal(t, ofEnv.TLS, consul.TLSOptions{ClientTLS: certificates.ClientTLS{CA: "env", ServerName: "name", SkipVerify: true}}, "TLS of the environment")
	c := load(Input{Getenv: env, Consul: "http://flag:1", Admin: "127.0.0.1:2", Listen: ":3"})
	verify.That(t, len(c.Consul.Addresses) == 1 && c.Consul.Addresses[0].Reveal() == "http://flag:1", "flag over environment: %+v", c.Consul)
	verify.That(t, c.Admin.Address.Text == "127.0.0.1:2" && reflect.DeepEqual(c.Listeners[0], Listener{Name: "web", Address: endpoint(":3"), Protocol: "http", HTTP2: true}), "flags over file: %+v %+v", c.Admin, c.Listeners)
	both := environ("CONSUL_HTTP_TOKEN", "s3cret", "CONSUL_HTTP_TOKEN_FILE", "/env")
	ofBoth := load(Input{Getenv: both}).Consul
	verify.That(t, ofBoth.Token.IsZero() && ofBoth.TokenFile == "/env", "token file over token: %+v", ofBoth)
}

func TestFlagErrorsNameTheFlag(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	verify.NoError(t, os.WriteFile(file, []byte("listeners: [{ address: ':80' }]"+tail), 0o600))
	tests := []struct {
		in   Input
		want string
	}{
		{Input{}, "nothing to serve: give --config FILE, --service NAME for a service in Consul, or --tags DIALECT for those with tags"},
		{Input{File: "a.yaml", Service: "b"}, "--service b: not allowed with --config: add the service to a.yaml"},
		{Input{File: filepath.Join(dir, "no.yaml")}, "read configuration: open " + dir + "/no.yaml: no such file or directory"},
		{Input{File: dir}, "read configuration: read " + dir + ": is a directory"},
		{Input{File: file, Listen: ":81"}, `--listen: value ":81": not allowed: the file sets listeners at ` + file + ":1"},
		{Input{File: "a.yaml", Tags: []string{"fabio"}}, "--tags: not allowed with --config: set catalog.tags in a.yaml"},
		{Input{Tags: []string{"fabbio"}}, `--tags: catalog.tags[0]: value "fabbio": want one of sluice, fabio, traefik (did you mean fabio?)`},
		{Input{Service: "a b"}, `--service: services.a b: value "a b": want a name of up to 128 letters, digits, '.', '_' or '-' that starts with a letter or digit`},
		{Input{Service: "a", Listen: "80"}, `--listen: listeners[0].address: value "80": want HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535; or unix:/PATH`},
		{Input{Service: "a", Admin: "x"}, `--admin: admin.address: value "x": want HOST:PORT or :PORT, an IPv6 address in brackets, the port from 0 (any free one) to 65535; or unix:/PATH`},
		{Input{Service: "a", Consul: "ftp://x"}, `--consul: consul.addresses[0]: value "ftp://x": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH`},
		{Input{Service: "a", Getenv: environ("CONSUL_HTTP_ADDR", ":")}, `CONSUL_HTTP_ADDR: consul.addresses[0]: value ":": want http://HOST:PORT, https://HOST:PORT, HOST:PORT or unix:///PATH`},
	}
	for _, test := range tests {
		_, err := test.in.Load()
		verify.That(t, err != nil && err.Error() == test.want, "%+v:\n got  %v\n want %s", test.in, err, test.want)
	}
}
