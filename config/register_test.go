package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/consul/registration"
	"sluice/test/verify"
)

const someService = "\nservices: {a: {peers: [\"127.0.0.1:80\"]}}\nroutes: [{service: a}]"

func TestRegisterIsOffByDefault(t *testing.T) {
	c := mustParse(t, someService)
	verify.That(t, c.Consul.Register == nil, "got %+v", c.Consul.Register)
	want := &ConsulRegister{
		Service: "sluice", DeregisterCriticalAfter: time.Hour,
		Check: registration.Check{Type: "auto", Interval: 10 * time.Second, Timeout: 2 * time.Second},
	}
	c = mustParse(t, "consul: { register: {} }"+someService)
	verify.That(t, reflect.DeepEqual(c.Consul.Register, want), "got %+v, want %+v", c.Consul.Register, want)
}

func TestRegisterRefusals(t *testing.T) {
	long := strings.Repeat("x", 513)
	for text, want := range map[string]string{
		`service: "a_b"`:                               `sluice.yaml:1: consul.register.service: value "a_b": want a name of up to 63 letters, digits or '-', as in DNS`,
		`service: "a-"`:                                `consul.register.service`,
		`id: "a/b"`:                                    `consul.register.id: value "a/b": want a name`,
		`address: "10.0.0.1:80"`:                       `consul.register.address: value "10.0.0.1:80": want a host name or an IP address, without a port`,
		`port: 70000`:                                  `consul.register.port: value "70000": want a whole number from 0 to 65535`,
		`meta: ["a b=c"]`:                              `consul.register.meta[0]`,
		`meta: ["a=b", "a=c"]`:                         `consul.register.meta[1]: value "a=c": the same as consul.register.meta[0] at sluice.yaml:1`,
		`meta: ["consul-x=c"]`:                         `consul.register.meta[0]`,
		`meta: ["sluice-admin=c"]`:                     `consul.register.meta[0]: value "sluice-admin=c": want "KEY=VALUE"`,
		`meta: ["a=` + long + `"]`:                     `consul.register.meta[0]`,
		`deregister_critical_after: 30s`:               `consul.register.deregister_critical_after: value "30s": want 0s, which is never, or at least 1m`,
		`check: { type: htpp }`:                        `did you mean http?`,
		`check: { type: tcp, url: "http://a/" }`:       `consul.register.check.url: value "http://a/": not allowed with type: tcp: want type auto or http`,
		`check: { address: "a:1" }`:                    `consul.register.check.address: value "a:1": not allowed with type: auto: want type tcp`,
		`check: { type: tcp, address: "a" }`:           `consul.register.check.address: value "a": want HOST:PORT`,
		`check: { url: "ftp://a/" }`:                   `consul.register.check.url: value "ftp://a/": want http://HOST:PORT/PATH or https://HOST:PORT/PATH`,
		`check: { url: "http://u:p@a/" }`:              `consul.register.check.url`,
		`check: { interval: 10ms }`:                    `consul.register.check.interval`,
		`check: { ttl: 10s }`:                          `unknown key`,
		`replica_token_file: "/etc/"`:                  `consul.register.replica_token_file: value "/etc/": want the path of a file`,
		`meta: [` + strings.Repeat(`k=v,`, 49) + `x=]`: `50 entries: want at most 48`,
	} {
		refuses(t, "consul: { register: { "+text+" } }"+someService, want)
	}
}

func TestFoundOmitsSluiceItself(t *testing.T) {
	c := mustParse(t, "consul: { register: { service: edge } }\ncatalog: {}")
	found, _ := c.Found([]string{"edge", "sluice"}, "")
	_, ok := found.Services["edge"]
	verify.That(t, !ok && len(found.Services) == 1, "services %v", found.Services)
}
